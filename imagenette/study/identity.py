"""Who a worker is: one process, on one machine, in one process namespace."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass

from imagenette.processes import place, started


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Who claims: one process on one machine, by the columns that name it in a row."""

    owner: str
    host: str
    place: str
    pid: int
    pid_started: float

    @classmethod
    def here(cls) -> Worker:
        return cls(
            owner=uuid.uuid4().hex,
            host=socket.gethostname(),
            place=place(),
            pid=os.getpid(),
            pid_started=started(os.getpid()),
        )
