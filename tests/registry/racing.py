"""Promoters as processes: four that meet in a barrier each round, and one that is killed at a chosen step."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient

from imagenette.registry import promote

WRITES = (
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
    "delete_registered_model_alias",
)


def promote_each_round(
    uri: str, rounds: list[tuple[str, str]], seed: int, barrier: Any, failures: Any
) -> None:
    """Promote rounds[i] = (registered model, run id) as round i begins, together with the others."""
    rng = random.Random(seed)
    for name, run_id in rounds:
        barrier.wait(120)
        time.sleep(rng.choice([0, 0, rng.random() * 0.3]))
        try:
            promote(tracking_uri=uri, experiment="registry", name=name, run_id=run_id)
        except Exception as error:
            if "not better than the champion" not in str(error):
                failures.append(f"{name}: {type(error).__name__}: {error}")


def killed_at(step: int, call: Callable[[], object]) -> int:
    """In a child process: kill it, outright, at that write to the registry (before the 1st, after it, before
    the 2nd ...). How many writes there were, or -1 for a child that was killed."""
    child = os.fork()
    if child == 0:
        _die_at(step)
        call()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return -1 if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else os.WEXITSTATUS(status)


def _die_at(step: int) -> None:
    passed = 0

    def pass_one() -> None:
        nonlocal passed
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def wrap(write: Callable[..., Any]) -> Callable[..., Any]:
        def writing(*given: Any, **named: Any) -> Any:
            pass_one()
            done = write(*given, **named)
            pass_one()
            return done

        return writing

    for name in WRITES:
        setattr(MlflowClient, name, wrap(getattr(MlflowClient, name)))


def main() -> None:
    """URI NAME FIRST-RUN SECOND-RUN: promote the second over the first, killed at every step in turn."""
    uri, prefix, first, second = sys.argv[1:]

    def go(name: str, run_id: str) -> object:
        return promote(tracking_uri=uri, experiment="registry", name=name, run_id=run_id)

    step = 0
    while True:
        name = f"{prefix}{step}"
        go(name, first)
        if killed_at(step, lambda name=name: go(name, second)) != -1:
            break
        print(name, flush=True)
        step += 1
    print("whole", name, flush=True)


if __name__ == "__main__":
    main()
