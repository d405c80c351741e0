"""Processes of this machine: whether one lives, signals to stop, children that end with their parent, cores,
memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import FrameType
from typing import Any, TypeVar

import psutil

T = TypeVar("T")


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


STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Requests to stop: an operator's, a closing terminal's, a batch system's warning before the end."""


Handler = Callable[[int, FrameType | None], object] | signal.Handlers


def on_stop(handler: Handler) -> dict[signal.Signals, Any]:
    """Have these signals handled; the handlers before. Under nohup, SIGHUP stays ignored. Python handles none
    in any thread but the first: there, none is set."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    taken = [number for number in STOPS if not (ignored and number is signal.SIGHUP)]
    return {number: signal.signal(number, handler) for number in taken}


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Inside, requests to stop only fill the list, for whoever looks at it between two steps."""
    received: list[int] = []
    before = on_stop(lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def in_thread(work: Callable[[], T], *, name: str) -> Future[T]:
    """Do it in a daemon thread: one that hangs in a call holds no process up."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


_PARENT = os.getppid()  # seconds later, after imports, it may be gone


def follow_parent(number: signal.Signals, *, parent: int = _PARENT) -> None:
    """Ask Linux to send this process a signal when its parent ends; at once if that is no longer `parent`
    (default: whoever started it)."""
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
