"""Processes of this machine: whether one lives, signals to stop, children that end with their parent, cores,
memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from types import FrameType

import psutil


def lives(pid: int, started: float) -> bool:
    """Whether that very process still runs. started: its creation time, unix seconds, since process ids are
    used again."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Inside, SIGTERM and SIGINT only fill the list, for whoever looks at it between two steps."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow_parent(number: signal.Signals, *, parent: int | None = None) -> None:
    """Ask Linux to send this process a signal when its parent ends; at once if that is no longer `parent`
    (default: whoever it is now)."""
    parent = parent or os.getppid()
    ctypes.CDLL(None).prctl(1, int(number))  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), number)


def cores() -> int:
    """CPU cores that this process may use: those it is bound to, and no more than a container's quota."""
    from joblib import cpu_count

    return int(cpu_count())


def keep_freed_memory() -> None:
    """Keep memory that is freed in this process (glibc; elsewhere nothing happens). A training step on a CPU
    frees and allocates the same blocks of some megabytes, which the kernel would clear each time: 5 % of a
    ResNet-18's step."""
    allocator = getattr(ctypes.CDLL(None), "mallopt", None)
    if allocator:
        allocator(-3, 32 * 2**20)  # M_MMAP_THRESHOLD, its largest: bigger blocks still come from the kernel
        allocator(-1, -1)  # M_TRIM_THRESHOLD: nothing is given back


def outlast(process: int, *, seconds: int) -> None:
    """Leave a small process behind that kills another one if it has not ended after so many seconds."""
    script = (
        f"for i in $(seq {2 * seconds}); do sleep 0.5; kill -0 {process} || exit; done; kill -9 {process}"
    )
    none = subprocess.DEVNULL
    subprocess.Popen(["sh", "-c", script], stdin=none, stdout=none, stderr=none, start_new_session=True)
