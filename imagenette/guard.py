"""Who may use an HTTP service of ours: who calls it by its own name, from its own pages, with the password.

An ASGI layer in front of an application, of which it knows nothing. It does not encrypt: for use beyond one
machine, put a proxy that speaks TLS in front.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagenette.errors import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

USER = "imagenette"
"""Name that goes with the one password of a service."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
OPEN = ("/health",)
"""Paths that need no password."""
_KEEP = 60.0  # seconds for which a right password is not checked again

Verify = Callable[[str, str], bool]


class Guard:
    """Refuses with 400 a Host header that is none of `hosts`, with 403 a request from another site's page,
    and with 401 whoever `verify(user, password)` does not know.

    hosts: names, with * as a wildcard; a port counts only where the pattern has one. Empty = any name. An
    IPv6 address may do without the brackets that the header has.
    verify: None = no password. It may block: it is called in a thread, and a right password is remembered for
    a minute.
    """

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str] = (), verify: Verify | None = None) -> None:
        self._app, self._hosts, self._verify = app, tuple(map(_bracketed, hosts)), verify
        self._key, self._known = os.urandom(32), dict[bytes, float]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "").lower()
        if self._hosts and not any(_matches(host, pattern) for pattern in self._hosts):
            await refuse(scope, send, 400, "this service does not go by that name (Host header)")
        elif _foreign(headers.get(b"origin"), host):
            await refuse(scope, send, 403, "requests from pages of other sites are refused")
        elif (
            self._verify
            and scope["path"] not in OPEN
            and not await self._knows(headers.get(b"authorization", ""))
        ):
            await refuse(scope, send, 401, "a user name and a password are needed")
        else:
            await self._app(scope, receive, send)

    async def _knows(self, header: str) -> bool:
        credentials = _credentials(header)
        if credentials is None or self._verify is None:
            return False
        # Of a password only a keyed digest is kept.
        digest = hmac.digest(self._key, "\0".join(credentials).encode(), hashlib.sha256)
        now = time.monotonic()
        if self._known.get(digest, 0.0) > now:
            return True
        from anyio.to_thread import run_sync

        if not await run_sync(self._verify, *credentials):
            return False
        self._known = {known: until for known, until in self._known.items() if until > now}
        self._known[digest] = now + _KEEP
        return True


def one_password(password: str, *, user: str = USER) -> Verify:
    """Accepts this user with this password; takes the same time for every wrong one."""

    def verify(given_user: str, given_password: str) -> bool:
        right_user = hmac.compare_digest(given_user.encode(), user.encode())
        return hmac.compare_digest(given_password.encode(), password.encode()) and right_user

    return verify


def read_password(path: Path) -> str:
    """The first line of a file. InputError if it cannot be read or is too short to be a password."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"password file {path} cannot be read: {reason}") from None
    password = lines[0].strip() if lines else ""
    if len(password) < 12:
        raise InputError(
            f"password file {path} must hold a password of 12 characters or more in its first line"
        )
    return password


def _bracketed(host: str) -> str:
    return f"[{host.lower()}]" if host.count(":") > 1 and "[" not in host else host.lower()


def _matches(host: str, pattern: str) -> bool:
    has_port = ":" in pattern.rpartition("]")[2]
    name = host if has_port or host.endswith("]") else host.rpartition(":")[0] or host
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _foreign(origin: str | None, host: str) -> bool:
    """Whether a browser names another site's page as the origin. Programs send no Origin."""
    return origin is not None and origin.lower().partition("://")[2] != host


def _credentials(header: str) -> tuple[str, str] | None:
    kind, _, encoded = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


async def refuse(scope: Scope, send: Send, status: int, detail: str) -> None:
    """Answer a request with a status and `{"detail": ...}`."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    content = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="imagenette", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
