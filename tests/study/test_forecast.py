"""What a study will take and can find, told before it begins."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput
from rich.console import Console

from imagenette.config import Config, resolve
from imagenette.errors import RunError
from imagenette.results import Status
from imagenette.stats import expected, smallest_difference
from imagenette.study.checks import planned
from imagenette.study.definition import Definition, load
from imagenette.study.forecast import Forecast, as_text, forecast, smallest
from imagenette.tracking.finished import FinishedRun, finished_runs

ROOT = Path(__file__).resolve().parents[2]
GRID = """
name = "mine"
title = "Mine [2 networks]"
seeds = [1, 2]
baseline = { depth = 18 }
baseline_seeds = [1, 2, 3, 4]
[base]
data = "digits"
size = 128
start_size = 64
epochs = 4
[grid]
depth = [18, 34]
"""


@pytest.fixture
def study(tmp_path: Path) -> Definition:
    path = tmp_path / "mine.toml"
    path.write_text(GRID)
    return load(str(path))


def run(seconds: float = 100.0, **changed: Any) -> FinishedRun:
    """Of an arm of the study, with a seed that it does not plan."""
    knobs = {"data": "digits", "size": 128, "start_size": 64, "epochs": 4, "depth": 18, "seed": 90}
    own = {key: changed.pop(key) for key in ("device", "accuracy", "train_images") if key in changed}
    known = FinishedRun(
        config=resolve(knobs | changed),
        seconds=seconds,
        device="a CPU",
        accuracy=0.9,
        train_images=1438,
        test_images=359,
    )
    return replace(known, **own)


def told(definition: Definition, found: Forecast, width: int = 120, **more: Any) -> str:
    console = Console(width=width, markup=False)
    with console.capture() as capture:
        console.print(as_text(definition, found, **more))
    return capture.get()


def test_each_arm_takes_the_median_of_runs_of_its_network_and_workers_share_it(study: Definition):
    runs = [run(90), run(100), run(1000), run(300, depth=34)]
    found = forecast(study, runs, [])
    assert (found.planned, found.left, found.known) == (6, 6, 6)
    assert found.seconds == pytest.approx(4 * 100 + 2 * 300)
    assert forecast(study, runs, [], workers=2).seconds == pytest.approx(500)
    assert forecast(study, runs, [], workers=50).seconds == pytest.approx(300), "no cell is split"
    said = " ".join(told(study, found).split())
    assert "about 17 min for 6 to train, 1 worker, by 3 runs of resnet18 at 128 px on a CPU, 1 run of" in said


@pytest.mark.parametrize(
    ("changed", "times"),
    [
        ({"epochs": 8}, 0.5),
        ({"limit": 719}, 2.0),
        ({"holdout": 0.4}, 1.5),
        ({"data": "imagenette", "train_images": 14380}, 0.1),
        ({"lr": 0.3}, 1.0),
    ],
)
def test_time_goes_by_epochs_and_training_images(study: Definition, changed, times):
    usual = forecast(study, [run(train_images=1438)], []).seconds
    size = run(1.0, depth=50)  # tells how many images the study's data has
    assert forecast(study, [size, run(**changed)], []).seconds == pytest.approx(times * usual)


def test_runs_of_the_very_same_arm_go_before_others_of_its_network(study: Definition):
    assert forecast(study, [run(500, batch_size=8), run(100)], []).seconds == pytest.approx(400)


@pytest.mark.parametrize("knob", [{"size": 64}, {"precision": "float32"}, {"architecture": "xresnet"}])
def test_runs_at_another_size_precision_or_network_tell_nothing(study: Definition, knob):
    assert forecast(study, [run(**knob)], []).known == 0


def test_only_the_device_of_the_newest_run_tells(study: Definition):
    found = forecast(study, [run(1000), run(2, device="a GPU")], [])
    assert found.seconds == pytest.approx(4 * 2)
    assert {each.device for each in found.like} == {"a GPU"}


def test_cells_of_which_nothing_is_known_are_counted_in_words(study: Definition):
    found = forecast(study, [run()], [])
    assert (found.left, found.known) == (6, 4)
    assert "no finished run tells of the other 2" in " ".join(told(study, found).split())
    assert "no finished run of such a network" in told(study, forecast(study, [], []))


def test_what_is_done_and_what_will_be_taken_from_other_runs_is_left_out(study: Definition):
    rows = planned(study)
    rows[0] = replace(rows[0], state=Status.FINISHED)  # depth=18 seed=1
    rows[1] = replace(rows[1], state=Status.FAILED)
    found = forecast(study, [run(seed=1), run(seed=2), run(300, depth=34)], rows)
    assert (found.done, found.reused, found.left) == (1, 1, 4)
    assert found.seconds == pytest.approx(2 * 100 + 2 * 300)
    assert "1 done, 1 taken from finished runs of the same config" in told(study, found)
    everything = [replace(row, state=Status.FINISHED) for row in rows]
    assert "nothing is left to train" in told(study, forecast(study, [], everything))


def test_seeds_scatter_as_the_studys_own_runs_do_once_an_arm_has_two(study: Definition):
    runs = [run(seed=1, accuracy=0.90), run(seed=2, depth=34, accuracy=0.95)]
    assert forecast(study, runs, []).spread is None
    found = forecast(study, [*runs, run(seed=2, accuracy=0.92), run(seed=9, accuracy=0.1)], [])
    assert found.spread == pytest.approx(2**0.5 / 100)
    assert found.spread_runs == 2
    assert "by 0.6  by 1.4, as its 2 runs do" in told(study, found)


def test_the_smallest_difference_is_that_of_the_plans_own_runs_arms_and_images():
    study = load("weight-decay")
    precision = expected(runs=4, baseline_runs=6, arms=6, variance=0.003**2, images=4 * 0.0015**2)
    expected_size = smallest_difference(precision, comparisons=5)
    assert smallest(study, more=1, spread=0.003, images=981) == pytest.approx(expected_size, rel=1e-3)
    sizes = [smallest(study, more=more, spread=0.003, images=None) for more in (0, 1, 5)]
    assert sizes[0] > sizes[1] > sizes[2]
    single = load("weight-decay", form="smoke")
    assert smallest(single, more=0, spread=0.003, images=None) is None
    assert "single runs do not tell" in told(single, forecast(single, [], []))


@pytest.mark.parametrize("width", [80, 120])
def test_a_plan_fits_the_screen(width):
    study = load("weight-decay")
    lines = told(study, forecast(study, [], []), width).splitlines()
    assert len(lines) <= 10
    assert all(len(line) <= width for line in lines)
    row = next(line for line in lines if "3 (6), as planned" in line)
    assert row.split("planned")[1].split() == ["1.2", "points", "2.0", "points"]


def test_a_search_has_trials_and_time_and_no_difference():
    search = load("search", overrides={"data": "digits", "size": "128"})
    like = run(60, optimizer="sgd", start_size=0, epochs=16)
    rows = [replace(row, state=Status.PRUNED) for row in planned(search)[:10]]
    found = forecast(search, [like], rows, workers=2)
    assert (found.planned, found.done, found.left) == (50, 10, 40)
    assert found.seconds == pytest.approx(40 * 60 / 2)
    text = told(search, found, workers=2)
    assert "at most about 20 min for 40 to train, 2 workers" in text
    assert "baseline" not in text


# -- from a real server --------------------------------------------------------------------------------


def tracked(client: MlflowClient, experiment: str, config: Config, *, seconds: float, epoch: float) -> None:
    """A run as a training leaves it."""
    made = client.create_run(
        experiment, start_time=config.depth, tags={"status": "finished", "device": "a CPU"}
    )
    for knob, text in config.params().items():
        client.log_param(made.info.run_id, knob, text)
    for name in ("selected", "final", "best"):
        client.log_metric(made.info.run_id, f"{name}/test_accuracy", 0.9)
    client.log_metric(made.info.run_id, "speed/epoch_seconds", epoch)
    profile = '{"train_images": 1438, "test_images": 359}'
    data = Dataset(name="d", digest="0", source_type="local", source="{}", profile=profile)
    client.log_inputs(made.info.run_id, [DatasetInput(data)])
    client.set_terminated(made.info.run_id, end_time=config.depth + round(1000 * seconds))


def test_a_server_tells_what_finished_runs_took_and_reached(tmp_path: Path, study: Definition):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("some")
    tracked(client, experiment, run().config, seconds=100, epoch=20)
    tracked(client, experiment, run(depth=34).config, seconds=90_000, epoch=20)  # it lay stopped for a day
    client.create_run(experiment, tags={"status": "running"})
    found = finished_runs(uri, "some")
    assert [each.config.depth for each in found] == [18, 34]
    assert found[0] == run()
    assert found[1].seconds == 4 * 20 + 300
    assert finished_runs(uri, "other") == []
    assert client.get_experiment_by_name("other") is None
    with pytest.raises(RunError, match=r"^there is no new\.db yet$"):
        finished_runs(f"sqlite:///{tmp_path}/new.db", "some")
    assert not (tmp_path / "new.db").exists()


NO_TORCH = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name=name)

sys.meta_path.insert(0, Missing())
from imagenette.cli import main
main()
"""


def test_a_plan_is_told_without_torch_or_a_server_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "mine.toml").write_text(GRID)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "OPTUNA"))}
    said = subprocess.run(
        [sys.executable, "-c", NO_TORCH, "study", "mine.toml", "--plan", "--label", "x", "--epochs", "3"],
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("mine-x: Mine [2 networks]\n")
    assert "6: 2 arms x 2 seeds, and 2 more of the baseline depth=18" in said.stdout
    assert "what finished runs took: tracking server http://127.0.0.1:1 does not answer" in said.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]
