"""An `imagenette server` process as a user starts it, and what runs for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import wait_until

COMMAND = [sys.executable, "-m", "imagenette", "server"]


class Served:
    """One folder; its server can be started, killed and started again on the same ports."""

    def __init__(self, folder: Path, *options: str, **env: str) -> None:
        self.folder, self.options, self._env = folder, options, env
        self.port, self.dashboard_port = free_ports(2)
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self, seconds: float = 300) -> float:
        """Until it has printed its lines; gives how many seconds that took."""
        self.starts += 1
        command = [*COMMAND, "--dir", str(self.folder), "--port", str(self.port), *self.options]
        command += ["--dashboard-port", str(self.dashboard_port)]
        began = time.monotonic()
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, env=clean_environment() | self._env, start_new_session=True
            )
        try:
            wait_until(lambda: "OPTUNA_STORAGE" in self.out or self.process.poll() is not None, seconds)
            assert self.process.poll() is None, self.err
        except AssertionError:
            self.kill()
            raise
        return time.monotonic() - began

    @property
    def out(self) -> str:
        return self._file("out").read_text()

    @property
    def err(self) -> str:
        return self._file("err").read_text()

    @property
    def env(self) -> dict[str, str]:
        """What `eval` of its lines makes of an environment."""
        script = (
            f'eval "$(cat {self._quoted("out")})" && echo "$MLFLOW_TRACKING_URI" && echo "$OPTUNA_STORAGE"'
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        uri, storage = done.stdout.splitlines()
        return {"MLFLOW_TRACKING_URI": uri, "OPTUNA_STORAGE": storage}

    def part(self, word: str) -> psutil.Process:
        """The process of that part: the child with the word in its command line."""
        (found,) = self.parts(word)
        return found

    def parts(self, word: str) -> list[psutil.Process]:
        assert self.process is not None
        return [p for p in psutil.Process(self.process.pid).children() if word in " ".join(p.cmdline())]

    def stop(self, number: int = signal.SIGTERM, seconds: float = 90) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """With all that it started, whatever state it is in."""
        mine: list[Any] = [self.process] if self.process else []
        for process in [*mine, *self.left()]:
            try:
                process.kill()
                process.wait(10)
            except (psutil.Error, subprocess.TimeoutExpired):
                continue

    def left(self) -> list[psutil.Process]:
        """Everything that still runs for this folder."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                marked = process.environ().get("IMAGENETTE_SERVER_FOLDER") == str(self.folder)
                if marked or str(self.folder) in line or process.cwd().startswith(f"{self.folder}/"):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def _file(self, kind: str) -> Path:
        return self.folder.parent / f"{self.folder.name}.{self.starts}.{kind}"

    def _quoted(self, kind: str) -> str:
        return f"'{self._file(kind)}'"


def run(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`imagenette server WORDS`."""
    command = [*COMMAND, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=clean_environment())
    assert done.returncode == code, done.stdout + done.stderr
    return done


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OPTUNA_"))}


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
