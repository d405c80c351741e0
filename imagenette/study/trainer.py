"""One trial as processes: a fresh `imagenette train`, watched until it ends, its end in a word. Knows no
database: whether to go on, and whether to prune, it asks its caller."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from imagenette.config import Config
from imagenette.training.job import Result
from imagenette.training.launch import GRACE, PARENT
from imagenette.training.pruning import ADDRESS, Reports, listening

GLANCE = 0.5  # seconds between two looks at whether the trial is still wanted


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial's training ended."""

    status: str
    """finished, pruned, failed, stopped (it can go on from where it is), or untracked (the tracking server
    let it open no run: as if it had not begun)."""
    metrics: dict[str, float] = field(default_factory=dict)
    unsynced: int = 0
    run_id: str | None = None
    reason: str | None = None
    said_itself: bool = True
    """Whether the training marked its MLflow run; one that was killed could not."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What to train, and as what."""

    config: Config
    output: Path
    study: str
    arm: str
    name: str
    parent: str | None
    trial: int

    def arguments(self) -> list[str]:
        """The command line of `imagenette train`, every knob said."""
        own = {
            "output": str(self.output),
            "study": self.study,
            "arm": self.arm,
            "run-name": self.name,
            "trial": str(self.trial),
        }
        if self.parent:
            own["parent"] = self.parent
        return [f"--{name}={text}" for name, text in {**own, **self.config.params()}.items()]


def run_training(
    training: Training,
    *,
    command: Sequence[str],
    env: Mapping[str, str],
    wanted: Callable[[], bool],
    prune: Callable[[Reports], bool] | None = None,
) -> Outcome:
    """Train in a process group of its own, and wait for its end.

    command: what stands before the options, `[python, -m, imagenette, train]`. wanted: asked twice a second;
    once it says no, the training is asked to save and end. prune: the study's answer after an epoch.
    """
    output = training.output
    if output.exists() and not evict(output, wanted):
        return Outcome(status="stopped", reason="stopped on request")
    before = Result.read(output)
    if before and before.status in ("finished", "pruned"):  # its worker died before it could tell
        return _outcome(before)
    output.mkdir(parents=True, exist_ok=True)
    (output / "result.json").unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening()) if prune else None
        log = stack.enter_context((output / "train.log").open("ab"))
        # No fluent call of a training may adopt the run that `mlflow run` made for the study.
        variables = {name: value for name, value in env.items() if name != "MLFLOW_RUN_ID"}
        variables[PARENT] = str(os.getpid())
        if listener:
            variables[ADDRESS] = listener.address
        line = [*command, *training.arguments()]
        log.write(f"$ {shlex.join(line)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            line, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        ended = os.pidfd_open(process.pid)
        stack.callback(os.close, ended)
        deadline = None  # once asked to stop
        while process.poll() is None:
            if deadline is None and not wanted():
                deadline = time.monotonic() + GRACE
                process.terminate()
            if deadline and time.monotonic() > deadline:
                _kill_group(process.pid)
            waited: list[Any] = [ended, listener] if listener else [ended]
            ready, _, _ = select.select(waited, [], [], GLANCE)
            if listener in ready and listener and prune:
                listener.answer(prune if deadline is None else lambda reports: False)
        _kill_group(process.pid)  # whatever a dead training left there
    # Asked once more: a signal to the whole machine reaches the training and us in the same moment.
    return judge(
        process.returncode,
        Result.read(output),
        output / "train.log",
        stopped=deadline is not None or not wanted(),
    )


def judge(code: int, result: Result | None, log: Path, *, stopped: bool) -> Outcome:
    """What an exit code and a result file (None: it could write none) mean."""
    if result and result.status in ("finished", "pruned"):
        return _outcome(result)
    if stopped:
        return Outcome(
            status="stopped", run_id=result.run_id if result else None, reason="stopped on request"
        )
    if result is None:
        return Outcome(status="failed", reason=_how(code, log), said_itself=False)
    if result.status == "untracked":
        return Outcome(status="untracked", reason=result.message)
    if result.status == "preempted":
        reason = f"ended by a signal from outside: {result.message}"
        return Outcome(status="failed", run_id=result.run_id, reason=reason, said_itself=False)
    reason = result.message if result.status == "failed" else f"{result.status}: {result.message}"
    return Outcome(status="failed", run_id=result.run_id, reason=reason, unsynced=result.unsynced)


def evict(output: Path, wanted: Callable[[], bool]) -> bool:
    """End a training that still holds the folder: its worker is frozen or gone, and the cell is ours now.
    False if it ceased to be ours meanwhile."""
    deadline = time.monotonic() + GRACE
    for process in holders(output) if wanted() else []:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    while left := holders(output):
        if not wanted():
            return False
        if time.monotonic() > deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        time.sleep(0.1)
    return True


def holders(output: Path) -> list[psutil.Process]:
    """Trainings on this machine whose command line names the folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if f"--output={output}" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _outcome(result: Result) -> Outcome:
    return Outcome(
        status=result.status,
        metrics=result.metrics,
        unsynced=result.unsynced,
        run_id=result.run_id,
        reason=result.message or None,
    )


def _how(code: int, log: Path) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (the kernel does so when memory runs out)" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].removeprefix("imagenette: ") if lines and not lines[-1].startswith("$ ") else ""
    last = "".join(letter for letter in last if letter.isprintable())
    return f"exit code {code}{': ' + last if last else ''}"


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
