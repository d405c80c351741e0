"""Who a worker is: one process, on one machine, in one process namespace."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil


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
            pid_started=psutil.Process().create_time(),
        )


def place() -> str:
    """Where a process id means something: cloned machines share names, containers of one machine do not share
    its processes."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
