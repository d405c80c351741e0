"""What a request may cost, and the gate in front of the service that refuses a body which costs more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagenette.guard import refuse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """More than any of these is refused."""

    batch: int = 32
    """Pictures in one pass of the network; 1 = one at a time."""
    files: int = 32
    """Files in a request."""
    body: int = 16_000_000
    """Bytes of a request."""
    pixels: int = 25_000_000
    """Of a picture, as its header claims."""
    seconds: float = 10.0
    """For a request's body to arrive, and again for its answer."""
    waiting: int = 512
    """Pictures in hand: being decoded, or waiting for the network."""
    bodies: int = 128_000_000
    """Bytes of all bodies together that are being received."""
    connections: int = 256
    head_seconds: float = 10.0
    """For a new connection to send its first request's head."""


class BodyGate:
    """Reads each body whole before the application sees the request, and none but forms with files: 415 for
    another kind, 413 past `body` bytes, 408 past `seconds`, 503 while all bodies together are past `bodies`.
    So a slow or endless client holds no more than its own connection."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._held = 0
        """Bytes of bodies that are being received."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if not _is_form(scope):
            await refuse(scope, send, 415, "the body must be multipart/form-data, in utf-8")
            return
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._read(scope, receive, parts)
        except TimeoutError:
            await refuse(scope, send, 408, f"the body did not arrive within {self._limits.seconds:g} seconds")
        except _TooLargeError:
            await refuse(scope, send, 413, f"the body has more than {self._limits.body:,} bytes")
        except _TooManyError:
            await refuse(scope, send, 503, "too busy: try again in a moment")
        except ConnectionAbortedError:
            pass  # nobody is there to be answered
        else:
            whole: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

            async def replay() -> Message:
                return whole.pop() if whole else await receive()  # then: the end of the connection

            parts.clear()
            await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive, parts: list[bytes]) -> None:
        """Of a body that is too large no more is read than its length, where it tells."""
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limits.body:
            raise _TooLargeError
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionAbortedError
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self._held += len(part)
                if size > self._limits.body:
                    raise _TooLargeError
                if self._held > self._limits.bodies:
                    raise _TooManyError
                if not message.get("more_body", False):
                    return
        finally:
            self._held -= size


def _is_form(scope: Scope) -> bool:
    """A form with files, its names in utf-8: in other charsets a name can be what no answer can repeat."""
    kind, *options = dict(scope["headers"]).get(b"content-type", b"").lower().split(b";")
    charsets = [o.split(b"=", 1)[-1].strip(b' "') for o in options if o.strip().startswith(b"charset")]
    return kind.strip() == b"multipart/form-data" and all(charset == b"utf-8" for charset in charsets)


class _TooManyError(Exception):
    pass


class _TooLargeError(Exception):
    pass


class SafeHeaders:
    """On every answer: a browser runs and loads nothing but what this service itself sends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        await self._app(scope, receive, adding)
