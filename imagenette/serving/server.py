"""`imagenette serve`: take the port, load the model, answer until a signal comes.

A stop loses nobody: connections that wait to be accepted are answered too, before the port is closed.
"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import click
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from imagenette.errors import InputError, RunError, shown
from imagenette.guard import LOOPBACK, Guard, one_password
from imagenette.ports import listen, netloc, refuse_new
from imagenette.processes import stop_signals
from imagenette.registry import is_model_folder
from imagenette.serving.app import create_app
from imagenette.serving.limits import Limits
from imagenette.serving.served import Follower, Served
from imagenette.tracking.address import Address

_GRACE = 15
"""Seconds that requests under way get after a signal."""
_LEAST_GRACE, _MOST_GRACE = 0.25, 2.0
"""Seconds that clients get after a signal to send what they were about to: those with an idle connection, and
those that connected or were answered just before, who may be about to ask (again)."""


def serve(
    model: str,
    *,
    host: str,
    port: int,
    follow: float,
    wait: bool,
    limits: Limits,
    tracking_uri: str | None = None,
    hosts: Sequence[str] = (),
    password: str | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered. InputError for a taken port, or where
    there is no such model (unless `wait`).

    hosts: names that requests may come by; none = loopback's where it listens there alone, else any.
    password: to be asked for, with the user name `imagenette`.
    """
    listening = listen(host, port)
    served = Served(model, tracking_uri, _print)
    in_folder = is_model_folder(model)
    address = None if in_folder else Address.parse(model)
    try:
        served.load()
    except (InputError, RunError) as error:
        if not wait or in_folder:
            raise
        _print(f"{error}; waiting for it")
    app = Guard(
        create_app(served, limits),
        hosts=hosts or (LOOPBACK if listening.getsockname()[0] in ("127.0.0.1", "::1") else ()),
        verify=one_password(password) if password else None,
    )
    server = _Server(
        uvicorn.Config(
            app,
            http=_protocol(limits.head_seconds),
            limit_concurrency=limits.connections,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_GRACE,
        )
    )
    moves = address is not None and address.alias is not None
    following = Follower(served, follow if moves else 0)
    if (moves and follow) or served.current is None:
        following.start()
    what = served.current.name if served.current else f"no model yet ({model})"
    _print(f"{what} at http://{netloc(host, listening.getsockname()[1])}")
    _run(server, listening)
    following.stop()


class _Server(uvicorn.Server):
    """uvicorn's, with a stop that loses no request: before it closes anything, it takes the connections that
    wait to be accepted and the requests that are on their way. The kernel would reset them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        stopped = time.monotonic()
        state = self.server_state
        state.default_headers = [*state.default_headers, (b"connection", b"close")]  # no next request
        waiting = select.poll()
        for listening in sockets or []:
            refuse_new(listening)
            waiting.register(listening, select.POLLIN)
        while (passed := time.monotonic() - stopped) < _MOST_GRACE:
            connections: list[Any] = list(state.connections)
            idle = (c for c in connections if c.cycle is None or c.cycle.response_complete)
            fresh = any(c.used > stopped - _MOST_GRACE for c in idle)
            if passed > _LEAST_GRACE and not fresh and not waiting.poll(0):
                break
            await asyncio.sleep(0.01)  # the event loop accepts, reads and answers
        await super().shutdown(sockets)


def _protocol(head_seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, which closes a connection whose first request's head does not come in time."""

    class Impatient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.used = time.monotonic()
            self.loop.call_later(head_seconds, self._close_if_silent)

        def on_response_complete(self) -> None:
            self.used = time.monotonic()
            super().on_response_complete()

        def _close_if_silent(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Impatient


def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    """In a thread of its own: there uvicorn leaves the signals to us, and does not raise them again after a
    stop."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="imagenette-serve")
    with stop_signals() as received:
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
            server.should_exit = server.should_exit or bool(received)
            server.force_exit = len(received) > 1  # a second signal stops it at once
    if not server.should_exit:
        raise RunError("the service ended by itself; the lines above give the reason")


def _print(line: str) -> None:
    click.echo(f"imagenette: {shown(line)}", err=True)
