"""What a request may cost, and the gate in front of the service that holds every body to it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """Pictures that wait for the network."""


class BodyGate:
    """Reads each body whole before the application sees the request: 413 past `body` bytes, 408 past
    `seconds`. So a slow or endless client holds no more than its own connection."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._limits.seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            await _refuse(408, f"the body did not arrive within {self._limits.seconds:g} seconds", send)
        except _TooLargeError:
            await _refuse(413, f"the body has more than {self._limits.body:,} bytes", send)
        except ConnectionAbortedError:
            pass  # nobody is there to be answered
        else:
            whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

            async def replay() -> Message:
                return whole.pop() if whole else await receive()  # then: the end of the connection

            await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Of a body that is too large no more is read than its length, where it tells."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._limits.body:
                raise _TooLargeError
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionAbortedError
            body += message.get("body", b"")
            if len(body) > self._limits.body:
                raise _TooLargeError
            if not message.get("more_body", False):
                return bytes(body)


class _TooLargeError(Exception):
    pass


async def _refuse(status: int, detail: str, send: Send) -> None:
    content = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


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
