"""The whole tour on `imagenette server`: train, a study, in the middle of which MLflow and PostgreSQL are
killed, promote, report; then a backup, and the same report from what was restored of it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.server.conftest import place  # noqa: F401 - a fixture
from tests.server.served import Served, clean_environment, run
from tests.waiting import wait_until

STUDY = "weight-decay-smoke"
WRITTEN = {".md", ".html", ".csv", ".tex", ".svg", ".json"}


@pytest.fixture
def served(place: Path) -> Iterator[Served]:  # noqa: F811
    served = Served(place / "server")
    served.start()
    yield served
    served.kill()


class User:
    """Commands in one folder, after `eval "$(imagenette server env)"`."""

    def __init__(self, folder: Path, served: Served) -> None:
        self.folder = folder
        own = {"OMP_NUM_THREADS": "1", "IMAGENETTE_HOME": str(folder / "home")}
        self.env = clean_environment() | served.env | own

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "imagenette", *words]
        with (self.folder / f"{words[0]}.log").open("a") as log:
            return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=log, stderr=log, text=True)

    def run(self, *words: str, codes: tuple[int, ...] = (0,)) -> int:
        began = time.monotonic()
        code = self.start(*words).wait(600)
        print(f"{' '.join(words[:2])}: {time.monotonic() - began:.1f} s, exit code {code}")
        assert code in codes, (self.folder / f"{words[0]}.log").read_text()
        return code


def complete(served: Served) -> int:
    """How many cells of the study are done."""
    storage = served.env["OPTUNA_STORAGE"]
    try:
        name = next(name for name in optuna.get_all_study_names(storage) if name.startswith("weight-decay"))
        return len(
            optuna.load_study(study_name=name, storage=storage).get_trials(states=[TrialState.COMPLETE])
        )
    except Exception:  # not there yet, or PostgreSQL was just killed
        return 0


def written(folder: Path, uri: str) -> dict[str, bytes]:
    """A report's files, without the server's address and the dates."""
    said = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.suffix in WRITTEN:
            text = content.decode().replace(uri, "SERVER")
            content = re.sub(r"on [-0-9]{10} at [:0-9]{5} UTC", "on DATE", text).encode()
        said[str(path.relative_to(folder))] = content
    return said


@pytest.mark.slow  # three to five minutes
@pytest.mark.timeout(1500)
def test_the_whole_tour_survives_two_kills_and_a_restore(served: Served, place: Path, tmp_path: Path) -> None:  # noqa: F811
    user = User(tmp_path, served)
    user.run("train", "--data", "digits", "--epochs", "1", "--limit", "640", "--output", "one")

    began = time.monotonic()
    study = user.start("study", "weight-decay", "--smoke", "--workers", "4")
    for word, name, done in (("mlflow server", "MLflow", 1), ("bin/postgres", "PostgreSQL", 3)):
        wait_until(lambda done=done: complete(served) >= done or study.poll() is not None, 300)  # type: ignore[misc]
        assert study.poll() is None, (tmp_path / "study.log").read_text()
        served.part(word).kill()
        wait_until(lambda name=name: f"{name} answers again" in served.err, 120)  # type: ignore[misc]
        print(f"{name} killed and back at {time.monotonic() - began:.0f} s, {complete(served)} cells done")
    code = study.wait(600)
    print(f"study: {time.monotonic() - began:.0f} s, exit code {code}")
    assert code in (0, 74), (tmp_path / "study.log").read_text()
    user.run("sync", "runs")
    assert complete(served) == 6
    user.run("promote", "--name", "imagenette")
    user.run("report", "--no-log", "--out", "first")

    began = time.monotonic()
    run("backup", tmp_path / "backup.tar", "--dir", served.folder)
    print(
        f"backup: {time.monotonic() - began:.1f} s, {(tmp_path / 'backup.tar').stat().st_size / 1e6:.0f} MB"
    )
    began = time.monotonic()
    other = Served(place / "restored")
    run("restore", tmp_path / "backup.tar", "--dir", other.folder)
    print(f"restore: {time.monotonic() - began:.1f} s")
    assert served.stop() == 0
    other.start()
    try:
        again = User(tmp_path, other)
        again.run("report", "--no-log", "--out", "second")
        again.run("lineage")
    finally:
        other.kill()
    one, two = written(tmp_path / "first", served.uri), written(tmp_path / "second", other.uri)
    assert set(one) == set(two)
    for name in one:
        assert one[name] == two[name], name
    assert sum(name.endswith((".md", ".html", ".csv")) for name in one) >= 4
