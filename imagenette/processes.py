"""Processes of this machine: whether one lives, signals to stop, children that end with their parent, cores,
memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import psutil

T = TypeVar("T")


def started(pid: int) -> float:
    """When a process began, in seconds since the machine did: no clock that is set later changes it, and
    process ids are used again. OSError where there is none, or none that may be seen."""
    return int(_facts(pid)[19]) / os.sysconf("SC_CLK_TCK")


def lives(pid: int, began: float) -> bool:
    """Whether the process that `started` at `began` still runs."""
    try:
        if began > 1e9:  # seconds since 1970, as earlier versions wrote
            same = abs(psutil.Process(pid).create_time() - began) < 2
        else:
            same = abs(started(pid) - began) < 0.02
        return same and _facts(pid)[0] != "Z"
    except (OSError, psutil.Error):
        return bool(pid > 0 and psutil.pid_exists(pid) and not Path(f"/proc/{pid}").exists())  # out of sight


def place() -> str:
    """Where a process id means something: cloned machines share names, containers of one machine do not share
    its processes."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"


def _facts(pid: int) -> list[str]:
    """Of /proc/PID/stat, from the third on: the second, the program's name, may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()


STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Requests to stop: an operator's, a closing terminal's, a batch system's warning before the end."""


Handler = Callable[[int, FrameType | None], object] | signal.Handlers


def heeded() -> list[signal.Signals]:
    """Those of STOPS that count here: under nohup, SIGHUP stays ignored."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOPS if not (ignored and number is signal.SIGHUP)]


def on_stop(handler: Handler) -> dict[signal.Signals, Any]:
    """Have those signals handled; the handlers before. Python handles none in any thread but the first: then,
    none is set."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in heeded()}


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
