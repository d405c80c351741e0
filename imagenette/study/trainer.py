"""One job as processes: a fresh `imagenette train`, watched until it ends, and what its end means. Knows no
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from imagenette.errors import as_line
from imagenette.results import Status
from imagenette.tracking.environment import without_outer_run
from imagenette.training.job import RESULT, Job, Result, check_output
from imagenette.training.launch import GRACE, PARENT
from imagenette.training.pruning import ADDRESS, Reports, listening

GLANCE = 0.5  # seconds between two looks at whether the training is still wanted
STOPPED = "stopped on request"


def run_training(
    job: Job,
    *,
    command: Sequence[str],
    env: Mapping[str, str],
    wanted: Callable[[], bool],
    prune: Callable[[Reports], bool] | None = None,
) -> Result:
    """Train in a process group of its own, and wait for its end.

    command: what stands before the options, `[python, -m, imagenette, train]`. wanted: asked twice a second;
    once it is false, the training is asked to save and end (PREEMPTED). prune: the study's answer after an
    epoch.
    """
    output = job.output
    if output.exists() and not evict(output, wanted):
        return Result(status=Status.PREEMPTED, message=STOPPED)
    check_output(job)  # a result of another config is none of this one's
    before = Result.read(output)
    if before and before.status.complete:  # its worker died before it could write that down
        return before
    output.mkdir(parents=True, exist_ok=True)
    (output / RESULT).unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening()) if prune else None
        log = stack.enter_context((output / "train.log").open("ab"))
        variables = without_outer_run(dict(env)) | {PARENT: str(os.getpid())}
        if listener:
            variables[ADDRESS] = listener.address
        line = [*command, *job.arguments()]
        log.write(f"$ {shlex.join(line)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            line, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        stack.callback(process.wait)
        stack.callback(_kill_group, process.pid)  # what a dead training left; a live one, if we break off
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
    # Asked once more: a signal to the whole machine reaches the training and us in the same moment.
    stopped = deadline is not None or not wanted()
    return judge(process.returncode, Result.read(output), output / "train.log", stopped=stopped)


def judge(code: int, result: Result | None, log: Path, *, stopped: bool) -> Result:
    """What an exit code and a result file (None: it could write none) mean to a study: FINISHED, PRUNED,
    FAILED, PREEMPTED (it can go on from where it is) or UNTRACKED (as if it had not begun)."""
    if result and result.status.complete:
        return result
    if stopped:
        run_id = result.run_id if result else None
        return Result(status=Status.PREEMPTED, run_id=run_id, message=STOPPED)
    if result is None:
        return Result(status=Status.FAILED, message=_how(code, log), recorded=False)
    if result.status in (Status.FAILED, Status.UNTRACKED):
        return result
    if result.status == Status.PREEMPTED:
        message = f"ended by a signal from outside: {result.message}"
        return replace(result, status=Status.FAILED, message=message, recorded=False)
    return replace(result, status=Status.FAILED, message=f"{result.status}: {result.message}")


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


def _how(code: int, log: Path) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (the kernel does so when memory runs out)" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    last = as_line(lines[-1].removeprefix("imagenette: ")) if lines and not lines[-1].startswith("$ ") else ""
    return f"exit code {code}{': ' + last if last else ''}"


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
