"""An HTTP server in front of a tracking server, which can ask for a login, fail, or answer as a proxy."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Answer = tuple[int, str, bytes]
"""Status, content type, body."""


@contextmanager
def front(
    to: str, *, login: str | None = None, instead: Callable[[str], Answer | None] = lambda path: None
) -> Iterator[str]:
    """Its address. to: the server behind. login: USER:PASSWORD that it wants. instead: what it answers to a
    path in the server's place."""
    behind = urlsplit(to)
    wanted = login and "Basic " + base64.b64encode(login.encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = instead(self.path)
            if answer is None and wanted and self.headers.get("Authorization") != wanted:
                answer = 401, "text/html", b"<html><h1>You are not authenticated</h1></html>"
            if answer is None:
                connection = http.client.HTTPConnection(behind.hostname or "", behind.port, timeout=30)
                kept = {"content-type", "accept"}
                headers = {name: text for name, text in self.headers.items() if name.lower() in kept}
                connection.request(self.command, self.path, body=body, headers=headers)
                got = connection.getresponse()
                answer = got.status, got.headers.get("Content-Type", "application/octet-stream"), got.read()
            status, kind, content = answer
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
