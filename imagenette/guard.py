"""Who may talk to an HTTP service of ours: who came by its own name, from its own pages, with the password.

An ASGI layer in front of an application, of which it knows nothing. It does not encrypt: beyond one machine,
put a proxy that speaks TLS in front.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
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
"""Answered to anybody who comes by the right name."""
_KEEP = 60.0  # seconds that a password once found right is taken without being checked again

Verify = Callable[[str, str], bool]


class Guard:
    """Refuses with 400 a Host header that is none of `hosts`, with 403 a request from another site's page,
    and with 401 whoever `verify(user, password)` does not know.

    hosts: names, with * as a wildcard; a port after the name is not looked at unless the pattern has one.
    Empty = any. verify: None = no password. May block: it is called in a thread, and what it found right is
    kept for a minute.
    """

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str] = (), verify: Verify | None = None) -> None:
        self._app, self._hosts, self._verify = app, tuple(host.lower() for host in hosts), verify
        self._key, self._known = os.urandom(32), dict[bytes, float]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "").lower()
        if self._hosts and not any(_matches(host, pattern) for pattern in self._hosts):
            await _refuse(scope, send, 400, "this service does not go by that name (Host header)")
        elif _foreign(headers.get(b"origin"), host):
            await _refuse(scope, send, 403, "requests from pages of other sites are refused")
        elif (
            self._verify
            and scope["path"] not in OPEN
            and not await self._knows(headers.get(b"authorization", ""))
        ):
            await _refuse(scope, send, 401, "a user name and a password are needed")
        else:
            await self._app(scope, receive, send)

    async def _knows(self, header: str) -> bool:
        said = _credentials(header)
        if said is None or self._verify is None:
            return False
        # Of a password only a keyed digest is kept.
        digest = hmac.digest(self._key, "\0".join(said).encode(), hashlib.sha256)
        now = time.monotonic()
        if self._known.get(digest, 0.0) > now:
            return True
        from anyio.to_thread import run_sync

        if not await run_sync(self._verify, *said):
            return False
        self._known = {known: until for known, until in self._known.items() if until > now}
        self._known[digest] = now + _KEEP
        return True


def one_password(password: str, *, user: str = USER) -> Verify:
    """Accepts this user with this password; takes the same time for every wrong one."""

    def verify(said_user: str, said_password: str) -> bool:
        right_user = hmac.compare_digest(said_user.encode(), user.encode())
        return hmac.compare_digest(said_password.encode(), password.encode()) and right_user

    return verify


def read_password(path: Path) -> str:
    """The first line of a file. InputError if it cannot be read or is too short to be a password."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"password file {path} cannot be read: {reason}") from None
    password = lines[0].strip() if lines else ""
    if len(password) < 12:
        raise InputError(
            f"password file {path} must hold a password of 12 characters or more in its first line"
        )
    return password


def _matches(host: str, pattern: str) -> bool:
    has_port = ":" in pattern.rpartition("]")[2]
    name = host if has_port or host.endswith("]") else host.rpartition(":")[0] or host
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _foreign(origin: str | None, host: str) -> bool:
    """Whether a browser says that another site's page asks. Programs send no Origin."""
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


async def _refuse(scope: Scope, send: Send, status: int, detail: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    content = f'{{"detail": "{detail}"}}'.encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="imagenette", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
