"""Promotion on a real MLflow server: what is taken, what is refused in one line, and who is champion."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from imagenette.errors import InputError, RunError
from imagenette.registry import Promotion, lineage, load, promote, rollback
from imagenette.tracking.lookup import tags_of
from tests.registry.finished_runs import CLASSES, DATA, PICTURES, Shop

GATES = ("better", "significant", "force")
_names = (f"model{i}" for i in itertools.count())


@pytest.fixture
def name() -> str:
    """A registered model of the test's own."""
    return next(_names)


@pytest.fixture
def go(shop: Shop, name: str):
    """go(run_id, **options) -> Promotion, under the test's own name."""

    def go(run_id: str | None = None, **options) -> Promotion:
        given = {"tracking_uri": shop.uri, "experiment": "registry", "name": name, "run_id": run_id}
        return promote(**(given | options))

    return go


@pytest.fixture
def aliases(shop: Shop, name: str):
    return lambda: {k: int(v) for k, v in MlflowClient(shop.uri).get_registered_model(name).aliases.items()}


@pytest.fixture(scope="module")
def runs(shop: Shop) -> dict[str, str]:
    """Shared finished runs, by what they are."""
    return {
        "good": shop.run(0.80, range(6)),
        "better": shop.run(0.90, range(4)),
        "worse": shop.run(0.70, range(9)),
        "significantly better": shop.run(0.95, range(0)),
        "lucky": shop.run(0.99, range(30)),
    }


def test_a_better_run_takes_the_place_and_the_one_before_is_kept(go, aliases, runs, shop, name):
    first = go(runs["good"])
    assert (first.version, first.champion, first.promoted) == (1, 1, True)
    assert aliases() == {"champion": 1}
    second = go(runs["better"])
    assert second.message == f"{name} version 2 is champion, version 1 is kept as previous"
    assert aliases() == {"champion": 2, "previous": 1}
    version = MlflowClient(shop.uri).get_model_version(name, "2")
    seen = {tag: text for tag, text in version.tags.items() if not tag.startswith("mlflow.")}
    assert len(seen) < 20, "MLflow's page of the version is readable"
    assert all(len(text) < 300 for text in seen.values()), seen
    tags = tags_of(version)
    for tag in (
        *("selection_metric", "selection_value", "study", "seed", "arm", "config", "commit", "commit_dirty"),
        *("data_digest", "environment", "gate", "verdict", "model_id", "selected/test_accuracy"),
    ):
        assert tags.get(tag), tag
    assert version.run_id == runs["better"]
    assert "right alone on 2 test images, wrong alone on 0, p = 0.5" in tags["verdict"]
    assert json.loads(tags["config"])["epochs"] == "1"
    assert "Promoted because" in version.description


def test_versions_whose_tags_all_could_be_seen_count_as_before(go, aliases, runs, shop, name):
    """As earlier code registered them."""
    go(runs["good"])
    client = MlflowClient(shop.uri)
    for key, text in client.get_model_version(name, "1").tags.items():
        if key.startswith("mlflow.imagenette."):
            client.set_model_version_tag(name, "1", key.removeprefix("mlflow.imagenette."), text)
            client.delete_model_version_tag(name, "1", key)
    known = lineage(f"{name}@champion", tracking_uri=shop.uri)
    assert known.data_digest == DATA
    assert known.environment
    with pytest.raises(RunError, match="does not replace champion version 1: it is not better"):
        go(runs["worse"])
    assert go(runs["better"]).promoted
    assert aliases() == {"champion": 2, "previous": 1}


def test_promoting_again_changes_nothing(go, aliases, runs, shop, name):
    go(runs["good"])
    again = go(runs["good"])
    assert (again.version, again.promoted) == (1, True)
    assert len(MlflowClient(shop.uri).search_model_versions(f"name = '{name}'")) == 1


def test_a_dry_run_says_what_would_be_and_does_nothing(go, runs, shop, name):
    lines: list[str] = []
    done = go(runs["good"], dry_run=True, report=lines.append)
    assert (done.version, done.champion) == (None, None)
    assert "would be registered" in done.message
    assert "its answers are those of training" in lines[0]
    assert MlflowClient(shop.uri).search_model_versions(f"name = '{name}'") == []


@pytest.mark.parametrize("gate", GATES)
def test_a_worse_run_under_each_gate(go, aliases, runs, gate):
    go(runs["good"])
    if gate == "force":
        assert go(runs["worse"], gate=gate).promoted
        assert aliases() == {"champion": 2, "previous": 1}
        return
    with pytest.raises(
        RunError, match=r"not better than the champion: its selected/holdout_accuracy 0\.7000"
    ) as no:
        go(runs["worse"], gate=gate)
    assert "\n" not in str(no.value)
    assert aliases() == {"champion": 1}


def test_better_on_the_holdout_but_significantly_worse_on_the_test_images_is_refused(go, runs):
    go(runs["good"])
    with pytest.raises(RunError, match="significantly worse on the test images"):
        go(runs["lucky"])


def test_the_significant_gate_wants_a_real_difference(go, runs, aliases):
    go(runs["good"])
    with pytest.raises(RunError, match="not significantly better on the test images"):
        go(runs["better"], gate="significant")
    assert go(runs["significantly better"], gate="significant").promoted


def test_without_a_run_the_best_of_the_study_or_experiment_is_taken(go, shop):
    for study, holdout in (("a", 0.5), ("a", 0.6), ("b", 0.9)):
        shop.run(holdout, experiment="choice", study=study)
    shop.run(0.99, experiment="choice", study="a", status="failed")
    shop.run(float("nan"), experiment="choice", study="a")
    shop.run(float("inf"), experiment="choice", study="a")
    lines: list[str] = []
    options = {"experiment": "choice", "report": lines.append}
    go(study="a", **options)
    assert "selected/holdout_accuracy 0.6000" in lines[0]
    go(**options)
    assert "selected/holdout_accuracy 0.9000" in lines[2]
    with pytest.raises(InputError, match="study c has no finished run"):
        go(study="c", **options)
    with pytest.raises(InputError, match="experiment 'nowhere' is not on "):
        go(experiment="nowhere")


def test_a_run_that_cannot_prove_itself_is_passed_over_for_the_next(go, shop):
    broken = shop.run(0.9, experiment="passing")
    sound = shop.run(0.8, experiment="passing")
    delete_models(shop, broken)
    lines: list[str] = []
    assert go(experiment="passing", report=lines.append).promoted
    assert f"run {broken} has no model 'selected'" in lines[0]
    assert f"run {sound}" in lines[1]


def test_runs_on_several_data_sets_are_never_compared_by_accident(go, shop):
    ours, theirs = shop.run(0.8, experiment="mixed"), shop.run(0.9, experiment="mixed", data_digest="f" * 64)
    with pytest.raises(InputError, match="runs on 2 data sets"):
        go(experiment="mixed")
    go(ours)
    assert go(experiment="mixed").version == 1, "the other data set's run is not looked at"
    with pytest.raises(RunError, match=r"other data \(digest ffffffff\)"):
        go(theirs)
    assert go(theirs, other_data=True).promoted


def model_of(shop: Shop, run_id: str) -> mlflow.entities.LoggedModel:
    client = MlflowClient(shop.uri)
    experiment = client.get_run(run_id).info.experiment_id
    (model,) = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    return model


def delete_models(shop: Shop, run_id: str) -> None:
    MlflowClient(shop.uri).delete_logged_model(model_of(shop, run_id).model_id)


def stored_at(server, address: str) -> Path:
    """Where the server keeps the files of an artifact address."""
    return server.folder / "artifacts" / address.split(":/", 1)[1].strip("/")


def files_of(shop: Shop, server, run_id: str) -> Path:
    """Where the server keeps the files of the run's model."""
    return stored_at(server, model_of(shop, run_id).artifact_location)


REFUSALS = {
    "no such run": "is not on tracking server",
    "unfinished": r"is not finished \(status running\)",
    "failed": r"is not finished \(status failed\)",
    "nan": "claims selected/holdout_accuracy=nan, which is no share",
    "infinite": "which is no share",
    "nan elsewhere": "claims final/test_accuracy=nan",
    "no holdout": "has no selected/holdout_accuracy",
    "deleted model": "has no model 'selected' on the server",
    "deleted files": r"artifacts is not there \(deleted\?\)",
    "pickled": r"it is stored as pickle \(model.pth\)",
    "another's answers": "it does not say of its proof pictures what it said in training",
    "damaged graph": r"its exported graph \(data/model.pt2\) is not the one that was saved",
    "damaged weights": r"it does not load: weights.safetensors",
    "another network's weights": r"it does not load: weights.safetensors",
    "no description": "does not describe a model of this project's",
    "no proof": "proof.safetensors is missing",
    "no predictions": r"predictions.csv is not there \(deleted\?\)",
    "another accuracy": "its predictions.csv has 0.9167 right, its metric claims 0.9900",
}


@pytest.fixture
def refused(shop: Shop, server, tmp_path: Path):
    """refused(what) -> the id of a run that is not fit in that way."""

    def pickled() -> Path:
        folder = tmp_path / "pickled"
        net = torch.nn.Flatten()
        mlflow.pytorch.save_model(net, str(folder), serialization_format="pickle", pip_requirements=[])
        return folder

    def make(what: str) -> str:
        if what == "no such run":
            return "0" * 32
        if what == "pickled":
            return shop.run(0.9, model=pickled())
        if what in ("unfinished", "failed"):
            return shop.run(0.9, status=None if what == "unfinished" else what)
        if what in ("nan", "infinite", "no holdout"):
            value = {"nan": float("nan"), "infinite": float("inf"), "no holdout": None}[what]
            run = shop.run(value)
            if what == "infinite":  # as another's code would have logged it
                MlflowClient(shop.uri).log_metric(run, "selected/holdout_accuracy", float("inf"), step=2)
            return run
        if what == "nan elsewhere":
            return shop.run(0.9, final_test_accuracy=float("nan"))
        if what == "another accuracy":
            return shop.run(0.9, selected_test_accuracy=0.99)
        run = shop.run(0.9)
        files = files_of(shop, server, run)
        if what == "deleted model":
            delete_models(shop, run)
        elif what == "deleted files":
            shutil.rmtree(files)
        elif what == "no proof":
            (files / "proof.safetensors").unlink()
        elif what == "damaged graph":
            (files / "data/model.pt2").write_bytes(b"no graph")
        elif what == "damaged weights":
            weights = files / "weights.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1000])
        elif what == "another network's weights":
            save_file({"fc.weight": torch.zeros(3, 512)}, files / "weights.safetensors")
        elif what == "another's answers":
            weights = load_file(files / "weights.safetensors")
            weights["fc.bias"] += torch.tensor([0.0, 0.01, 0.0])
            save_file(weights, files / "weights.safetensors")
        elif what == "no description":
            (files / "MLmodel").write_text("flavors: {}\n")
        elif what == "no predictions":
            artifacts = MlflowClient(shop.uri).get_run(run).info.artifact_uri
            (stored_at(server, artifacts) / "predictions.csv").unlink()
        return run

    return make


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_promoted_is_refused_in_one_line_and_nothing_is_registered(
    go, refused, shop, name, what
):
    run = refused(what)
    for gate in ("better", "force"):
        with pytest.raises(InputError, match=REFUSALS[what]) as no:
            go(run, gate=gate)
        assert "\n" not in str(no.value)
        assert run in str(no.value)
    assert MlflowClient(shop.uri).search_model_versions(f"name = '{name}'") == []


def test_rolling_back_brings_the_one_before_and_keeps_it(go, aliases, runs, shop, name):
    for which in ("worse", "good", "better"):
        go(runs[which])
    assert aliases() == {"champion": 3, "previous": 2}
    assert rollback(tracking_uri=shop.uri, name=name).champion == 2
    assert aliases() == {"champion": 2, "previous": 1}
    with pytest.raises(RunError, match=r"is version 3 of .*, which was rolled back: --gate force"):
        go(runs["better"])
    assert lineage(f"{name}/3", tracking_uri=shop.uri).withdrawn
    assert rollback(tracking_uri=shop.uri, name=name).champion == 1
    assert aliases() == {"champion": 1}
    with pytest.raises(RunError, match="no version before champion 1"):
        rollback(tracking_uri=shop.uri, name=name)
    assert go(runs["better"], gate="force").version == 4
    assert aliases() == {"champion": 4, "previous": 1}


def test_rolling_back_to_a_version_that_does_not_work_is_refused(go, aliases, shop, server, name):
    old, new = shop.run(0.7), shop.run(0.8)
    go(old)
    go(new)
    (files_of(shop, server, old) / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunError, match="version 1, which would follow champion 2: it does not load"):
        rollback(tracking_uri=shop.uri, name=name)
    assert aliases() == {"champion": 2, "previous": 1}


def test_a_rollback_that_was_interrupted_is_finished_and_not_done_twice(go, aliases, runs, shop, name):
    for which in ("worse", "good", "better"):
        go(runs[which])
    MlflowClient(shop.uri).set_model_version_tag(name, "3", "withdrawn", "just now")  # and then it was killed
    assert rollback(tracking_uri=shop.uri, name=name).champion == 2
    assert aliases() == {"champion": 2, "previous": 1}


def test_rolling_back_goes_to_who_reigned_before_not_to_who_lost_a_race(go, aliases, runs, shop, name):
    go(runs["worse"])
    go(runs["better"])
    client = MlflowClient(shop.uri)
    best = client.get_model_version(name, "2")  # as if registered in the same moment as version 2
    tags = dict(best.tags) | {"selection_value": "0.85"}
    model_id = tags_of(best)["model_id"]
    client.create_model_version(name, best.source, best.run_id, tags=tags, model_id=model_id)
    assert rollback(tracking_uri=shop.uri, name=name).champion == 1
    assert aliases() == {"champion": 1}


def test_after_a_rollback_the_next_best_run_is_taken(go, shop, name):
    for holdout in (0.7, 0.9):
        go(shop.run(holdout, experiment="rolled"))
    rollback(tracking_uri=shop.uri, name=name)
    shop.run(0.8, experiment="rolled")
    lines: list[str] = []
    assert go(experiment="rolled", report=lines.append).promoted
    assert "rolled back" in lines[0]
    assert "0.8000" in lines[1]


def test_a_version_once_displaced_by_force_may_come_back(go, runs, aliases):
    go(runs["better"])
    go(runs["worse"], gate="force")
    assert go(runs["better"]).version == 3
    assert aliases() == {"champion": 3, "previous": 2}


def test_a_store_that_is_away_takes_no_alias_away(go, aliases, runs, shop, server):
    go(runs["good"])
    go(runs["better"])
    away = server.folder / "artifacts"
    away.rename(server.folder / "away")
    try:
        with pytest.raises((InputError, RunError)):
            go()
        with pytest.raises(RunError, match="is the store of artifacts reachable"):
            go(runs["good"], gate="force")
    finally:
        (server.folder / "away").rename(away)
    assert aliases() == {"champion": 2, "previous": 1}


def test_an_impossible_run_with_force_changes_no_alias(go, aliases, runs, shop, name):
    go(runs["good"])
    go(runs["better"])
    MlflowClient(shop.uri).set_registered_model_alias(name, "champion", "1")
    with pytest.raises(InputError):
        go("0" * 32, gate="force")
    assert aliases()["champion"] == 1


@pytest.mark.parametrize("given", [{"name": "it's"}, {"name": "a/b"}, {"run_id": "../'"}, {"study": "a'\"b"}])
def test_names_that_cannot_be_are_refused_as_input(go, given):
    with pytest.raises(InputError):
        go(**given)


def test_a_study_may_have_a_quote_in_its_name(go, shop):
    shop.run(0.6, study="it's", experiment="quotes")
    assert go(study="it's", experiment="quotes").promoted
    with pytest.raises(InputError, match="has no finished run"):
        go(study="x' AND tags.a = 'b", experiment="quotes")


def test_a_bare_database_without_a_server_will_do(model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shop = Shop(f"sqlite:///{tmp_path}/mlflow.db", model_folder, tmp_path / "runs")
    options = {"tracking_uri": shop.uri, "experiment": "registry", "name": "imagenette"}
    for holdout in (0.7, 0.8):
        promote(run_id=shop.run(holdout), **options)
    assert lineage("imagenette@champion", tracking_uri=shop.uri).version == 2
    assert load("imagenette@previous", tracking_uri=shop.uri).labels == CLASSES
    client, known = MlflowClient(shop.uri), lineage("imagenette@champion", tracking_uri=shop.uri)
    model = client.get_logged_model(known.model_id)
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "imagenette", "version": "2"}]
    assert rollback(tracking_uri=shop.uri).champion == 1


def test_a_champion_whose_files_were_deleted_makes_way(go, aliases, shop, server, runs):
    lost = shop.run(0.99, range(2))
    go(runs["worse"])
    go(lost)
    shutil.rmtree(files_of(shop, server, lost))
    lines: list[str] = []
    assert go(runs["good"], report=lines.append).promoted
    assert "the champion's 0.7000" in lines[1]
    assert aliases() == {"champion": 3, "previous": 1}


def test_an_alias_set_by_hand_to_a_foreign_version_is_respected(go, aliases, runs, shop, name):
    client = MlflowClient(shop.uri)
    client.create_registered_model(name)
    source = f"{client.get_run(runs['worse']).info.artifact_uri}/by-hand"
    foreign = client.create_model_version(name, source, runs["worse"], await_creation_for=0)
    client.set_registered_model_alias(name, "champion", foreign.version)
    with pytest.raises(RunError, match="version 1, which was registered by hand"):
        go(runs["good"])
    assert go(runs["good"], gate="force").promoted
    assert aliases() == {"champion": 2}


def test_a_study_s_stand_in_leads_to_the_run_that_was_trained(go, runs, shop):
    client = MlflowClient(shop.uri)
    experiment = client.get_run(runs["good"]).info.experiment_id
    tags = {"role": "reused", "reused_run": runs["good"], "status": "finished", "study": "again"}
    tags["data_digest"] = DATA
    stand_in = client.create_run(experiment, tags=tags)
    client.set_terminated(stand_in.info.run_id)
    assert go(stand_in.info.run_id).version == 1
    assert go(study="again").version == 1


def test_the_run_that_mlflow_run_made_tells_what_came_of_it(go, runs, shop, monkeypatch):
    client = MlflowClient(shop.uri)
    experiment = client.get_run(runs["good"]).info.experiment_id
    launcher = client.create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launcher)
    go(runs["good"])
    assert "MLFLOW_RUN_ID" not in os.environ
    tags = client.get_run(launcher).data.tags
    assert (tags["role"], "is champion" in tags["mlflow.note.content"]) == ("promotion", True)


def test_lineage_and_load_from_every_address(go, runs, shop, name):
    go(runs["good"])
    for address in (name, f"{name}@champion", f"{name}/1", f"models:/{name}@champion"):
        found = lineage(address, tracking_uri=shop.uri)
        assert (found.version, found.run_id, found.aliases) == (1, runs["good"], ("champion",))
        assert found.metrics["selected/holdout_accuracy"] == 0.8
        assert json.dumps(found.to_json())
    model = load(f"{name}@champion", tracking_uri=shop.uri)
    assert model.classes == CLASSES
    assert model.shares(PICTURES[:5]).shape == (5, 3)
    pixels = torch.from_numpy(PICTURES[:5]).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        assert np.allclose(model.module(pixels).numpy(), model.shares(PICTURES[:5]), atol=1e-6)
    picture = Path(__file__).parents[2] / "docs/mlflow-study.png"
    assert model.preprocess(picture.read_bytes()).shape == (32, 32, 3)
    unknown = {f"{name}@none": r"has @champion, /1", "nobody": "imagenette models", f"{name}/9": "/1"}
    for address, words in unknown.items():
        with pytest.raises(InputError, match=words):
            load(address, tracking_uri=shop.uri)


def test_a_dead_server_is_one_line(name):
    for call in (lineage, promote, rollback, load):
        with pytest.raises(RunError, match=r"tracking server http://127.0.0.1:9 does not answer"):
            call(tracking_uri="http://127.0.0.1:9")
