"""How a training asks whoever drives it whether to go on: the epochs so far out, one word back.

A study's worker listens on a Unix socket and names it in IMAGENETTE_PRUNER; rank 0 of the training asks after
each epoch and waits for the answer, so where a run is cut does not depend on timing. Both ends are here, and
neither knows Optuna or tensors. Nobody listening means: go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from imagenette.records import Epoch

ADDRESS = "IMAGENETTE_PRUNER"
PATIENCE = 60.0  # seconds that a training waits for the answer

Reports = dict[int, dict[str, float]]
"""Epoch (1-based) -> its metrics."""


def pruner() -> Callable[[Sequence[Epoch]], bool]:
    """The question to ask after each epoch: should this run, with this history, stop here?"""
    address = os.environ.get(ADDRESS)
    return (lambda history: ask(address, history)) if address else (lambda history: False)


def ask(address: str, history: Sequence[Epoch]) -> bool:
    """One question to the socket at `address`. The whole history goes along: a resumed run's listener is
    another one, which has heard nothing yet."""
    said = {epoch.index: epoch.metrics() for epoch in history}
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(address)
            connection.sendall(json.dumps(said).encode() + b"\n")
            return connection.makefile().readline() == "prune\n"
    except OSError:
        return False


class Listener:
    """The worker's end: a socket to wait on together with whatever else it waits for."""

    def __init__(self, socket_: socket.socket, address: str) -> None:
        self._socket, self.address = socket_, address

    def fileno(self) -> int:
        return self._socket.fileno()

    def answer(self, judge: Callable[[Reports], bool]) -> None:
        """Take one question and answer it with what judge says."""
        connection, _ = self._socket.accept()
        with connection, contextlib.suppress(OSError, ValueError):  # a training killed while it asks
            connection.settimeout(PATIENCE)
            asked = json.loads(connection.makefile().readline())
            verdict = judge({int(epoch): metrics for epoch, metrics in asked.items()})
            connection.sendall(b"prune\n" if verdict else b"go on\n")


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """A fresh socket, gone with the block."""
    with (
        tempfile.TemporaryDirectory(prefix="imagenette-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        address = str(Path(folder) / "pruner")  # short: Linux takes 107 characters
        listener.bind(address)
        listener.listen()
        yield Listener(listener, address)
