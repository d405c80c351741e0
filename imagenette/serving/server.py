"""`imagenette serve`: the model fetched, the port taken, the service run until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Sequence
from types import FrameType

import click
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from imagenette.errors import InputError, RunError
from imagenette.guard import LOOPBACK, Guard, one_password
from imagenette.ports import listen
from imagenette.registry import is_model_folder
from imagenette.registry.address import Address
from imagenette.serving.app import create_app
from imagenette.serving.limits import Limits
from imagenette.serving.served import Follower, Served

_GRACE = 15
"""Seconds that requests under way get after a signal."""


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
    served = Served(model, tracking_uri, _say)
    in_folder = is_model_folder(model)
    address = None if in_folder else Address.parse(model)
    try:
        served.load()
    except (InputError, RunError) as error:
        if not wait or in_folder:
            raise
        _say(f"{error}; waiting for it")
    app = Guard(
        create_app(served, limits),
        hosts=hosts or (LOOPBACK if listening.getsockname()[0] in ("127.0.0.1", "::1") else ()),
        verify=one_password(password) if password else None,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=_impatient(limits.head_seconds),
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
    _say(f"{what} at http://{host}:{listening.getsockname()[1]}")
    _run(server, listening)
    following.stop()


def _impatient(seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, which closes a connection whose first request's head does not come in time."""

    class Impatient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(seconds, self._close_if_silent)

        def _close_if_silent(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Impatient


def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    """In a thread of its own: there uvicorn leaves the signals to us, and does not raise them again after a
    stop that was asked for."""

    def stop(number: int, frame: FrameType | None) -> None:
        server.force_exit = server.should_exit  # asked twice: at once
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="imagenette-serve")
    try:
        thread.start()
        while thread.is_alive():
            thread.join(0.2)  # signal handlers run between two of these
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not server.should_exit:
        raise RunError("the service ended by itself; the lines above say why")


def _say(line: str) -> None:
    click.echo(f"imagenette: {line}", err=True)
