"""What a killed server left running: found by its mark or its folder, and ended before another starts."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from imagenette.server.folder import Folder

MARK = "IMAGENETTE_SERVER_FOLDER"
"""In the environment of all that a server starts: its folder."""


def end_leftovers(folder: Folder) -> int:
    """End them, the database gently; gives how many processes. Only for the holder of the folder."""
    ended = 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        databases = database_processes(folder)
        marked = _processes(lambda p: p.pid != os.getpid() and p.environ().get(MARK) == str(folder.path))
        others = [process for process in marked if process not in databases]
        if not databases and not others:
            break
        send(others, signal.SIGKILL)
        send(databases, signal.SIGINT)  # to the first of them: a fast shutdown
        send(still_there(databases, seconds=20), signal.SIGKILL)
        still_there([*databases, *others], seconds=10)
        ended += len(databases) + len(others)  # again: one of them may just have started another
    # A process id in it may by now be another program's, and PostgreSQL would not start beside that.
    (folder.postgres / "postmaster.pid").unlink(missing_ok=True)
    return ended


def database_processes(folder: Folder) -> list[psutil.Process]:
    """PostgreSQL's in the folder: each has a session of its own, and writes over its environment."""
    return _processes(lambda p: p.name() == "postgres" and Path(p.cwd()) == folder.postgres)


def send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def still_there(processes: Sequence[psutil.Process], *, seconds: float) -> list[psutil.Process]:
    """Those that have not ended by then. What nobody reaps has ended: in a container it may stay so."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _lives(process: psutil.Process) -> bool:
    try:
        # One whose first thread alone has ended is shown as a zombie, and holds its files and ports.
        dead = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() == 1
        return process.is_running() and not dead
    except psutil.NoSuchProcess:
        return False


def _processes(wanted: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if wanted(process):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # another user's, or it has ended
    return found
