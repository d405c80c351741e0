"""Runs are found in whatever experiment they lie, unless one is named: by reports, the doctor and a study."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from imagenette.errors import InputError
from imagenette.report.reader import open_reader
from imagenette.tracking.doctor import find
from imagenette.tracking.experiments import elsewhere, holding_runs, look_in
from imagenette.tracking.runs import UID
from tests.report.store import Store, outline
from tests.tracking.test_parent import opened, reusable, trained


def test_one_is_named_or_all_are_looked_in(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient(uri)
    other = client.create_experiment("other")
    client.delete_experiment(client.create_experiment("gone"))
    assert look_in(client, None) == {"0": "Default", other: "other"}
    assert look_in(client, "other") == {other: "other"}
    for name, word in {"nowhere": "not", "gone": "deleted"}.items():
        with pytest.raises(InputError, match=f"experiment '{name}' is {word} on sqlite"):
            look_in(client, name)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")  # `mlflow run` that was told none
    assert len(look_in(client, None)) == 2
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", other)  # `mlflow run --experiment-name other`
    assert look_in(client, None) == {other: "other"}
    assert (elsewhere("imagenette"), elsewhere("other")) == ("", " in experiment 'other'")


def test_those_that_hold_runs_of_ours_come_with_the_newest_first(uri: str) -> None:
    client = MlflowClient(uri)
    older, foreign = client.create_experiment("older"), client.create_experiment("foreign")
    client.create_run(older, start_time=1, tags={UID: "a"})
    client.create_run("0", start_time=2, tags={UID: "b"})
    client.create_run(foreign, start_time=3)
    assert list(holding_runs(client, None).items()) == [("0", "Default"), (older, "older")]


def test_a_report_reads_a_study_where_it_lies(uri: str, tmp_path: Path) -> None:
    usual = Store(uri, "imagenette", tmp_path)
    usual.parent(outline("decay"))
    outer = Store(uri, "Default", tmp_path)
    outer.parent(outline("depth"))
    assert open_reader(uri, None).studies() == ["depth", "decay"]
    assert open_reader(uri, "imagenette").studies() == ["decay"]
    assert open_reader(uri, None).study("depth").experiment == "Default"
    newer = outer.parent(outline("decay"))
    found = open_reader(uri, None).study("decay")
    assert (found.parents, found.experiment, found.others) == ((newer,), "Default", ("imagenette",))


def test_the_doctor_leaves_other_peoples_runs_alone_and_says_where_ours_lie(uri: str) -> None:
    client = MlflowClient(uri)
    other = client.create_experiment("other")
    client.create_run(other, start_time=1)
    ours = client.create_run(other, start_time=1, tags={UID: "a"}).info.run_id
    [finding] = find(client, None)
    assert str(finding).startswith(f"lost run {ours} in experiment 'other': ")
    assert len(list(find(client, "other"))) == 2, "of a named experiment it looks at every run"


def test_a_study_reuses_runs_of_any_experiment_unless_one_is_named(uri: str) -> None:
    elsewhere_run = trained(opened(uri, uid="two", experiment="other"), "good", uri)
    assert reusable(opened(uri), "good") == {}
    found = reusable(opened(uri, uid="three", experiment=None), "good")
    assert found["good"].info.run_id == elsewhere_run
