"""One part of a server: a process with all that it starts, in a session of its own. Does it live, does it
answer, how it is asked to stop, and how the last of its children ends."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from imagenette.processes import follow_parent
from imagenette.server.leftovers import send, still_there

MOST_LOG = 16 * 2**20
"""Bytes of a log that are added to at a start; a longer one is put aside, in place of the one before it."""


def run_tool(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, which comes at once where we are killed; what it says is kept, not shown."""
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        preexec_fn=functools.partial(follow_parent, signal.SIGKILL, parent=os.getpid()),
        **options,
    )


@dataclass
class Part:
    name: str
    command: Sequence[str | Path]
    log: Path
    answers: Callable[[], bool]
    env: dict[str, str]
    cwd: Path
    user: str | None = None
    """The system user that runs it; None: whoever runs us."""
    asks: signal.Signals = signal.SIGTERM
    """What asks it to stop, and what it gets when we are killed."""
    insists: signal.Signals = signal.SIGKILL
    """What stops it at once."""
    grace: float = 10.0
    """Seconds between the two."""
    strays: Callable[[], list[psutil.Process]] = list
    """Its processes that are not in its session."""
    scratch: Path | None = None
    """Folder of its temporary files, which is emptied before each start: a killed one leaves them."""
    worker_word: str = ""
    """In the command lines of workers that it starts again by itself; empty: it has none."""

    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    started: float = field(default=0.0, init=False)

    def start(self) -> None:
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > MOST_LOG:
            self.log.replace(self.log.with_suffix(".1.log"))
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir(mode=0o700)
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [str(word) for word in self.command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self.env | ({"TMPDIR": str(self.scratch)} if self.scratch else {}),
                cwd=self.cwd,
                start_new_session=True,
                # After the change of user, which would forget it. We have one thread: forking is safe.
                preexec_fn=functools.partial(follow_parent, self.asks, parent=os.getpid()),
                **as_user(self.user),
            )
        self.started = time.monotonic()

    def has_died(self) -> bool:
        """It is not reaped by this: its session's number stays its own."""
        if self.process is None:
            return False
        ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is not None

    def clean_up(self) -> str:
        """End what the dead process left; what it died of, in words."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        strays = self.strays()
        send(strays, signal.SIGKILL)
        still_there(strays, seconds=10)
        self.process = None
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask, wait, insist. hurry: whether to insist already."""
        if self.process is None:
            return
        if not self.has_died() and not hurry():
            self.process.send_signal(self.asks)
            self._wait(self.grace, hurry)
        if not self.has_died():
            self.process.send_signal(self.insists)
            self._wait(5.0)
        if not self.has_died():
            self.process.kill()
        self.clean_up()

    def workers(self) -> set[int]:
        """Process ids of those that it starts again by itself."""
        found = set()
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if self.worker_word in " ".join(child.cmdline()):
                        found.add(child.pid)
        return found

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text("utf-8", errors="replace").splitlines() if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")

    def _wait(self, seconds: float, hurry: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while not self.has_died() and not hurry() and time.monotonic() < deadline:
            time.sleep(0.05)


def as_user(name: str | None) -> dict[str, Any]:
    """Popen's arguments for a process of that system user alone."""
    return {} if name is None else {"user": name, "group": name, "extra_groups": []}


def answers_http(port: int, path: str) -> bool:
    """Whether GET on loopback gives 200: without a proxy, whatever the environment says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
