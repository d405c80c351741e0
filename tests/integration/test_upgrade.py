"""What an earlier version of the package made is used by today's: half-trained runs, unsent runs, studies cut
short, registered models, server folders, caches and reports. Both versions run for real, side by side."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import optuna
import psutil
import pytest
import torch
from optuna.trial import TrialState
from safetensors import safe_open

from tests.data.small_sets import pack, small_set
from tests.integration.conftest import Training, logged_epochs, processes_of, weights
from tests.integration.earlier import (
    ASK_PYFUNC,
    BEFORE,
    ROOT,
    Version,
    check_out,
    contents,
    curves,
    pictures,
    run_of,
    shares,
    tracked_run,
)
from tests.server.conftest import place  # noqa: F401 - a fixture
from tests.server.served import Served
from tests.serving.conftest import start_service
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The earlier version, in the folder that both share."""
    folder = tmp_path_factory.mktemp("upgrade")
    return Version(check_out(tmp_path_factory.mktemp("source")), folder, f"sqlite:///{folder}/mlflow.db")


@pytest.fixture(scope="module")
def new(old: Version) -> Version:
    return replace(old, source=ROOT)


@pytest.fixture(scope="module")
def unsent(old: Version, start: Callable[..., Training]) -> Path:
    """A whole run of the earlier code that no tracking server heard of. Copy the folder before sending it."""
    output = old.folder / "unsent"
    training = start(output, env=old.env)
    assert training.wait(400) == 74, training.said
    return output


@pytest.fixture(scope="module")
def trained(old: Version) -> str:
    """The id of a short run that the earlier code trained and tracked."""
    return old.train(old.folder / "trained", lr=0.1)


@pytest.fixture(scope="module")
def resumed(old: Version, new: Version, start: Callable[..., Training]) -> tuple[Path, str]:
    """A run that the earlier code began and today's ended: its folder, and the id that the first gave it."""
    output = old.folder / "resumed"
    training = start(output, env=old.env, offline="false")
    training.reaches_epoch(2, 300)
    training.process.send_signal(signal.SIGTERM)
    assert training.wait(200) == 75
    assert len(logged_epochs(output)) < 4, "stopped too late to show anything"
    run = run_of(output)
    training = start(output, env=new.env, offline="false")
    assert training.wait(400) == 0, training.said
    return output, run


@dataclass
class Continued:
    """A study that was killed under the earlier code and completed by today's."""

    killed: list[dict[str, Any]]
    """The rows of its cells as the dead left them."""
    cut_short: str
    """The run that was being trained."""
    parent: str


@pytest.fixture(scope="module")
def continued(old: Version, new: Version) -> Continued:
    words = (
        "study",
        old.write_study("rates", seeds=[1, 2], epochs=2, lr=[0.05, 0.1]),
        "--workers",
        "1",
        "--output",
        old.folder / "runs",
    )
    driver = old.start(*words)

    def amid_the_third() -> bool:
        assert driver.poll() is None, (old.folder / "study.log").read_text()
        rows = old.cells()
        running = [row for row in rows if row["state"] == "running" and row["output"]]
        done = sum(row["state"] == "done" for row in rows)
        return done == 2 and any(logged_epochs(Path(row["output"])) for row in running)

    wait_until(amid_the_third, 600)
    process = psutil.Process(driver.pid)
    for each in [process, *process.children(recursive=True)]:  # as when the machine loses its power
        each.kill()
    driver.wait()
    wait_until(lambda: not processes_of(old.folder / "runs"))
    killed, experiment = old.cells(), old.client.get_experiment_by_name("imagenette")
    (parent,) = old.client.search_runs([experiment.experiment_id], "tags.mlflow.runName = 'rates'")
    cut_short = tracked_run(Path(killed[2]["output"]))

    new.run(*words)
    return Continued(killed, cut_short, parent.info.run_id)


def test_each_version_imports_its_own_code(old: Version, new: Version) -> None:
    script = "import imagenette, imagenette.cli; print(imagenette.__file__, imagenette.cli.__file__)"
    for version in (old, new):
        for file in version.python("-c", script).split():
            assert Path(file).is_relative_to(version.source / "imagenette"), (BEFORE, file)


def test_a_run_stopped_under_the_earlier_code_ends_the_same(
    new: Version, resumed: tuple[Path, str], unsent: Path
) -> None:
    output, run_id = resumed
    assert run_of(output) == run_id
    run = new.client.get_run(run_id)
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "finished")
    assert [m.step for m in new.client.get_metric_history(run_id, "train/loss")] == [1, 2, 3, 4]
    same = new.client.search_runs([run.info.experiment_id], f"tags.output = '{output}'")
    assert len(same) == 1

    rows = curves(output)
    assert {"train/loss", "holdout/accuracy", "test/loss", "test/accuracy"} <= rows[0].keys()
    assert rows == curves(unsent)
    answers = "summary/predictions.csv"
    assert (output / answers).read_bytes() == (unsent / answers).read_bytes()
    assert about(output) == about(unsent), "in whatever order"
    ours, whole = weights(output), weights(unsent)
    assert ours.keys() == whole.keys()
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def about(output: Path) -> dict[str, Any]:
    """What a run's selected model says of itself, in the header of its weights."""
    with safe_open(output / "models/selected/weights.safetensors", framework="numpy") as file:
        return dict(json.loads(file.metadata()["about"]))


def test_a_run_that_the_earlier_code_could_not_send_is_sent(new: Version, unsent: Path) -> None:
    output = new.folder / "sent"
    shutil.copytree(unsent, output)
    assert "records sent" in new.run("sync", output)
    run = new.client.get_run(tracked_run(output))
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "finished")
    for name in ("train/loss", "holdout/accuracy", "test/accuracy"):
        kept = {record["step"]: record["metrics"][name] for record in logged_epochs(unsent)}
        history = new.client.get_metric_history(run.info.run_id, name)
        assert [(m.step, m.value) for m in history] == sorted(kept.items())
    artifacts = {item.path for item in new.client.list_artifacts(run.info.run_id)}
    assert {"curves.png", "predictions.csv", "config.json"} <= artifacts
    models = new.client.search_logged_models([run.info.experiment_id])
    own = [model.status.value for model in models if model.source_run_id == run.info.run_id]
    assert own
    assert set(own) == {"READY"}


def test_a_study_killed_under_the_earlier_code_is_completed(new: Version, continued: Continued) -> None:
    rows = new.cells()
    assert [row["state"] for row in continued.killed] == ["done", "done", "running", "waiting"]
    assert [row["state"] for row in rows] == ["done"] * 4
    assert rows[:2] == continued.killed[:2], "what was done is left as it was"
    assert rows[2]["run_id"] == continued.cut_short, "the training that was killed goes on as the same run"
    trials = optuna.load_study(study_name="rates", storage=new.env["OPTUNA_STORAGE"]).get_trials()
    complete = {t.user_attrs["cell"]: t for t in trials if t.state == TrialState.COMPLETE}
    assert len(complete) == sum(t.state == TrialState.COMPLETE for t in trials) == 4
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.FAIL}

    client = new.client
    for row in rows:
        run, trial = client.get_run(row["run_id"]), complete[row["cell"]]
        assert (trial.number, trial.user_attrs["run_id"]) == (row["trial"], row["run_id"])
        assert trial.value == row["value"] == run.data.metrics["selected/holdout_accuracy"]
        assert run.data.tags["mlflow.parentRunId"] == continued.parent
        assert [m.step for m in client.get_metric_history(row["run_id"], "train/loss")] == [1, 2], (
            "each epoch once"
        )
    assert len({row["run_id"] for row in rows}) == 4
    parent = client.get_run(continued.parent)
    assert (parent.info.status, parent.data.tags["status"]) == ("FINISHED", "finished")
    inside = f"tags.`mlflow.parentRunId` = '{continued.parent}'"
    assert len(client.search_runs([parent.info.experiment_id], inside)) == 4
    assert len(client.search_runs([parent.info.experiment_id], "tags.mlflow.runName = 'rates'")) == 1


def measured(table: Path) -> list[dict[str, str]]:
    """A report's table; of arms compared, the effect alone: how it is tested is today's."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    effect = ("arm", "baseline", "difference", "runs", "baseline_runs")
    return [{name: row[name] for name in effect} for row in rows] if "difference" in rows[0] else rows


def test_a_report_on_a_study_of_before_says_what_it_said(
    old: Version, new: Version, continued: Continued
) -> None:
    for version, name in ((old, "before"), (new, "after")):
        version.run("report", "rates", "--no-log", "--out", name)
    before, after = old.folder / "before/rates", new.folder / "after/rates"
    tables = sorted(path.name for path in before.glob("*.csv"))
    assert "runs.csv" in tables
    for name in tables:
        said, says = measured(before / name), measured(after / name)
        assert [{column: row[column] for column in said[0]} for row in says] == said, "and may say more"
    rows = {row["run_id"]: row for row in measured(after / "runs.csv")}
    assert rows.keys() == {row["run_id"] for row in new.cells()}
    for run_id, row in rows.items():
        metrics = new.client.get_run(run_id).data.metrics
        assert float(row["selected/test_accuracy"]) == metrics["selected/test_accuracy"]
    assert "lr=0.05" in (after / "report.md").read_text()


def test_a_study_takes_a_run_that_the_earlier_code_trained(new: Version, trained: str) -> None:
    file = new.write_study("known", seeds=[1], epochs=1, lr=[0.1, 0.2])  # of these the first was trained
    storage = f"sqlite:///{new.folder}/known.db"
    new.run("study", file, "--storage", storage, "--output", new.folder / "known-runs")
    known, fresh = new.cells("known.db")
    assert (known["state"], known["reused"]) == ("done", trained)
    assert (fresh["state"], fresh["reused"]) == ("done", None)
    client = new.client
    stand_in, run = client.get_run(known["run_id"]), client.get_run(trained)
    assert (stand_in.data.tags["role"], stand_in.data.tags["reused_run"]) == ("reused", trained)
    assert known["value"] == run.data.metrics["selected/holdout_accuracy"]
    assert len(list((new.folder / "known-runs").rglob("history.csv"))) == 1, "one cell was trained, not two"


def test_a_model_registered_by_the_earlier_code_is_used(
    old: Version, new: Version, trained: str, resumed: tuple[Path, str]
) -> None:
    files = pictures(old.folder)
    old.run("promote", "--run", trained)
    lineage = json.loads(old.run("lineage", "--json", "imagenette/1"))
    command = ("predict", "--json", "--top", 10, "--model", "imagenette/1", *files)
    expected = [shares(json.loads(line)["top"]) for line in old.run(*command).splitlines()]
    assert len(expected) == len(files)

    new.run("promote", "--run", resumed[1], "--gate", "force")
    champion = new.client.get_model_version_by_alias("imagenette", "champion")
    assert (int(champion.version), champion.run_id) == (2, resumed[1])
    still = json.loads(new.run("lineage", "--json", "imagenette/1"))
    assert still.pop("aliases") == ["previous"]
    assert lineage.pop("aliases") == ["champion"]
    assert still == lineage
    answers = [shares(json.loads(line)["top"]) for line in new.run(*command).splitlines()]
    assert_same(answers, expected)

    http = start_service(new.folder, "imagenette/1", tracking_uri=new.tracking)
    try:
        sent = [("files", (file.name, file.read_bytes())) for file in files]
        answer = httpx.post(f"{http.url}/predict?top=10", files=sent).json()
    finally:
        http.stop()
    assert answer["model"] == {"name": "imagenette", "version": 1, "run_id": trained}
    assert_same([shares(each["top"]) for each in answer["predictions"]], expected)

    assert_same(json.loads(new.python("-c", ASK_PYFUNC, "models:/imagenette/1", *files)), expected)

    new.run("rollback")
    champion = new.client.get_model_version_by_alias("imagenette", "champion")
    assert (int(champion.version), champion.run_id) == (1, trained)


def assert_same(answers: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert len(answers) == len(expected)
    for one, two in zip(answers, expected, strict=True):
        assert one == pytest.approx(two, abs=1e-4)


@pytest.mark.parametrize("form", ["sqlite", "postgresql"])
def test_a_server_folder_and_a_backup_of_the_earlier_code_are_served(
    old: Version,
    new: Version,
    unsent: Path,
    place: Path,  # noqa: F811
    form: str,
) -> None:
    output, backup = place / f"{form}-run", place / f"{form}.tar"
    shutil.copytree(unsent, output)
    with service(old, place / form, form) as before:
        before.run("sync", output)
        before.run("server", "backup", backup, "--dir", place / form)
    run_id = tracked_run(output)

    with service(new, place / form, form) as after:
        assert_holds(after, {run_id})
        added = after.train(place / f"{form}-added")
        assert_holds(after, {run_id, added})

    new.run("server", "restore", backup, "--dir", place / f"{form}-restored")
    with service(new, place / f"{form}-restored", form) as restored:
        assert_holds(restored, {run_id})


@contextmanager
def service(version: Version, folder: Path, form: str) -> Iterator[Version]:
    """`imagenette server` of that version on the folder; gives the version as its client."""
    served = Served(folder, *(["--sqlite"] if form == "sqlite" else []), **version.imports)
    served.start()
    try:
        yield replace(version, tracking=served.uri)
        assert served.stop() == 0
    finally:
        served.kill()


def assert_holds(version: Version, runs: set[str]) -> None:
    """The server has these runs, whole: their state, their curves and a file that comes down."""
    client = version.client
    experiment = client.get_experiment_by_name("imagenette")
    found = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    assert found.keys() == runs
    for run_id, run in found.items():
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run_id, "train/loss")
        assert len(history) == int(run.data.params["epochs"])
        file = client.download_artifacts(run_id, "predictions.csv")
        assert Path(file).read_text().startswith("image,")


def test_a_cache_of_the_earlier_code_is_read_without_decoding(old: Version, new: Version) -> None:
    data = pack(small_set(train=8, val=4), old.folder / "animals")
    before = old.run("data", data, "--size", 32)
    home = old.folder / "home"
    cached = contents(home / "cache")
    assert cached
    assert new.run("data", data, "--size", 32) == before  # read once more, for what a picture is by now
    assert contents(home / "cache") == cached
    for image in data.rglob("*.JPEG"):  # same size, same time, no picture any more: reading one would fail
        times = image.stat()
        image.write_bytes(b"\0" * times.st_size)
        os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert new.run("data", data, "--size", 32) == before
    assert contents(home / "cache") == cached
