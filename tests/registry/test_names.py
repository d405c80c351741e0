"""Which registered model a run goes to, and what is listed of them: one champion for each data set, found in
whatever experiment its run lies. On a database file alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from imagenette.cli import verbs
from imagenette.data.sources import IMAGENETTE
from imagenette.errors import InputError
from imagenette.registry import load, promote, registered
from tests.registry.finished_runs import IMAGES, REPRODUCE, Shop, saved_model


@pytest.fixture
def digits(uri: str, model_folder: Path, tmp_path: Path) -> Shop:
    return Shop(uri, model_folder, tmp_path / "digits")


@pytest.fixture
def photos(uri: str, tmp_path: Path) -> Shop:
    """Runs on Imagenette's classes."""
    return Shop(uri, saved_model(tmp_path / "ten", [*IMAGENETTE]), tmp_path / "photos", [*IMAGENETTE])


def test_a_demo_does_not_take_the_place_that_is_meant_for_imagenette(digits: Shop, photos: Shop) -> None:
    demo = digits.run(0.99, data_digest="d" * 64, experiment="imagenette")
    lines: list[str] = []
    first = promote(tracking_uri=digits.uri)
    assert first.message == "imagenette-digits version 1 is champion"
    with pytest.raises(InputError, match="did you mean imagenette-digits@champion"):
        load(tracking_uri=digits.uri)

    real = photos.run(0.70, range(30), data="somewhere", experiment="Default")
    second = promote(tracking_uri=digits.uri, report=lines.append)
    assert second.message == "imagenette version 1 is champion"
    assert lines[0].startswith(f"run {real} (small 1) in experiment 'Default': ")
    assert promote(tracking_uri=digits.uri).message == second.message, "its data say which runs count"
    assert promote(tracking_uri=digits.uri, run_id=demo).message == first.message
    assert promote(tracking_uri=digits.uri, name="imagenette-digits").message == first.message

    only = promote(tracking_uri=digits.uri, experiment="imagenette", name="else")
    assert only.message == "else version 1 is champion", "a named experiment is the only one looked in"


def test_the_models_are_listed_with_their_intervals(digits: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    run = digits.run(0.8, range(6))
    promote(tracking_uri=digits.uri)
    [listed] = registered(tracking_uri=digits.uri)
    assert (listed.name, listed.version, listed.aliases) == ("imagenette-digits", 1, ("champion",))
    assert (listed.test_accuracy, listed.test_images, listed.run_id) == (0.9, IMAGES, run)
    low, high = listed.interval
    assert (round(low, 3), round(high, 3)) == (0.799, 0.953), "Wilson's of 54 of 60"

    monkeypatch.setenv("MLFLOW_TRACKING_URI", digits.uri)
    shown = CliRunner().invoke(verbs, ["models"], standalone_mode=False).output
    assert max(map(len, shown.splitlines())) <= 80
    assert all(word in shown for word in ("90.0 [79.9, 95.3]", run, "champion"))
    command = ["lineage", "imagenette-digits@champion"]
    shown = CliRunner().invoke(verbs, command, standalone_mode=False).output
    assert shown.splitlines()[-1] == REPRODUCE, "whole on its line, to be copied"
    assert json.loads(CliRunner().invoke(verbs, ["models", "--json"]).output)[0]["run_id"] == run
