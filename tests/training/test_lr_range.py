"""The range test: what it reads off a curve, and one on the digits, tracked."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from mlflow import MlflowClient

from imagenette.config import resolve
from imagenette.data import open_dataset
from imagenette.errors import InputError
from imagenette.tracking.eligibility import unfinished
from imagenette.training.lr_range import Range, measure, report


def curve(losses: list[float]) -> Range:
    return Range(
        rates=[10.0**n for n in range(-4, len(losses) - 4)], losses=losses, smooth=losses, machine={}
    )


@pytest.mark.parametrize(
    ("losses", "steepest", "lowest", "broke"),
    [
        ([2.3, 2.2, 1.5, 1.4, 2.0, 9.0], 1e-3, 1e-1, True),
        ([2.3, 2.2, 1.5, 1.4, 1.3], 1e-3, 1.0, False),
        ([2.3, 2.2, 1.9, 2.2, 0.9, 9.0], 1e-3, 1e-2, True),  # what comes after a rise is no place to be
        ([2.3, 2.4, 2.5, 9.9], 1e-4, 1e-4, True),
        ([2.3, 1.0, math.inf], 1e-4, 1e-3, True),
    ],
)
def test_it_reads_the_curve(losses, steepest, lowest, broke):
    found = curve(losses)
    assert (found.steepest, found.lowest, found.broke) == (steepest, lowest, broke)


def test_a_range_on_the_digits_falls_breaks_and_is_a_run_that_is_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    config = resolve({"data": "digits", "optimizer": "adamw", "batch_size": 32, "device": "cpu"})
    found, run_id = report(
        config, open_dataset("digits"), tmp_path / "new", low=1e-4, high=100, steps=90, offline=False
    )
    assert found.broke, "100 is too much for any network"
    assert len(found.rates) == len(found.losses) == len(found.smooth) < 90
    assert min(found.smooth) < 0.9 * found.losses[0]
    assert found.steepest <= found.lowest < 100
    kept = json.loads((tmp_path / "new/lr-range.json").read_text())
    assert (kept["falls_fastest_at"], kept["rates"]) == (found.steepest, found.rates)
    assert (tmp_path / "new/lr-range.png").read_bytes().startswith(b"\x89PNG")
    client = MlflowClient()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run_id, "lr_range/loss")) == len(found.losses)
    assert {file.path for file in client.list_artifacts(run_id)} == {"lr-range.json", "lr-range.png"}
    assert "role=lr-range" in (unfinished(run) or "")


def test_rates_in_the_wrong_order_are_one_line():
    with pytest.raises(InputError, match=r"low=1 and high=0\.1: low must be > 0 and < high"):
        measure(resolve({"data": "digits"}), open_dataset("digits"), low=1, high=0.1, steps=10)
