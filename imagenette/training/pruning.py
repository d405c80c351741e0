"""How a training asks its study whether to go on: the epochs so far go out, one word comes back.

A study's worker listens on a Unix socket and names it in IMAGENETTE_PRUNER. Rank 0 of the training asks after
each epoch and waits for the answer, so where a run ends early does not depend on timing. Both ends are here;
neither knows Optuna or tensors. Where nobody listens, the training goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence

from imagenette.files import scratch
from imagenette.records import Epoch

ADDRESS = "IMAGENETTE_PRUNER"
PATIENCE = 60.0  # seconds that a training waits for the answer
PRUNE, GO_ON = "prune\n", "go on\n"

Reports = dict[int, dict[str, float]]
"""Epoch (1-based) -> its metrics."""


def pruner() -> Callable[[Sequence[Epoch]], bool]:
    """(history) -> whether the run should end here; to be called after each epoch."""
    address = os.environ.get(ADDRESS)
    return (lambda history: ask(address, history)) if address else (lambda history: False)


def ask(address: str, history: Sequence[Epoch]) -> bool:
    """One question to the socket at `address`. The whole history goes along: after a resume the listener is
    another one, which knows nothing of it yet."""
    reports = {epoch.index: epoch.metrics() for epoch in history}
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(address)
            connection.sendall(json.dumps(reports).encode() + b"\n")
            return connection.makefile().readline() == PRUNE
    except OSError:
        return False


class Listener:
    """The worker's end: a socket to wait on, together with whatever else the worker waits for."""

    def __init__(self, socket_: socket.socket, address: str) -> None:
        self._socket, self.address = socket_, address

    def fileno(self) -> int:
        return self._socket.fileno()

    def answer(self, judge: Callable[[Reports], bool]) -> None:
        """Take one question, and answer it: judge says whether to prune."""
        connection, _ = self._socket.accept()
        with connection, contextlib.suppress(OSError, ValueError):  # the training may be killed meanwhile
            connection.settimeout(PATIENCE)
            reports = json.loads(connection.makefile().readline())
            verdict = judge({int(epoch): metrics for epoch, metrics in reports.items()})
            connection.sendall((PRUNE if verdict else GO_ON).encode())


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """A fresh socket, removed with the block."""
    with scratch() as folder, socket.socket(socket.AF_UNIX) as listener:
        address = str(folder / "pruner")  # short: Linux takes 107 characters
        listener.bind(address)
        listener.listen()
        yield Listener(listener, address)
