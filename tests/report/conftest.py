"""A real MLflow server with a whole study on it, and the command line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from imagenette.cli import main
from tests.report.store import Store, outline
from tests.tracking.tracking_helpers import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("report-server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def store(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(server.uri, "reports", tmp_path_factory.mktemp("made"))
    make_decay(store)
    return store


def make_decay(store: Store) -> None:
    """The study `decay`: three arms, two seeds, the last arm much worse."""
    plan = outline(
        "decay", references={"weight_decay=0.0": {"best/test_accuracy": 0.9}}, reference_source="A report"
    )
    store.parent(plan)
    for arm, wrong in zip(plan.arms, (20, 19, 80), strict=True):
        for seed in plan.seeds:
            store.run("decay", arm, seed, wrong=wrong + seed)


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Report = Callable[..., Done]


def command(store: Store, *words: str | Path, **env: str) -> Done:
    """The command line in this process: its imports take longer than a report."""
    told, complained = io.StringIO(), io.StringIO()
    clean = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
    own = {"MLFLOW_TRACKING_URI": store.uri, "MLFLOW_EXPERIMENT_NAME": store.experiment}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", clean | own | env)
        patch.setattr(sys, "argv", ["imagenette", *map(str, words)])
        with redirect_stdout(told), redirect_stderr(complained), pytest.raises(SystemExit) as end:
            main()
    return Done(int(end.value.code or 0), told.getvalue(), complained.getvalue())


@pytest.fixture(scope="session")
def report(store: Store) -> Report:
    return partial(command, store, "report")


@pytest.fixture(scope="session")
def made(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report on `decay`."""
    out = tmp_path_factory.mktemp("report")
    done = report("decay", "--out", out)
    assert done.returncode == 0, done.stderr
    return out
