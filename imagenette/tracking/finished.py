"""Finished runs of an experiment as a plan for more of them needs them: what was trained, how long it took,
what it reached. Reads the tracking server, and makes nothing there."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagenette.config import Config, from_params
from imagenette.errors import InputError, RunError
from imagenette.results import SELECTED
from imagenette.tracking.client import opened, resolve_uri
from imagenette.tracking.eligibility import FINISHED_RUNS, unfit
from imagenette.tracking.experiments import look_in, search

if TYPE_CHECKING:
    from mlflow.entities import Run

_BESIDE = 300.0
"""Seconds that a run may take beside its epochs: to begin, to be held up, to end."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One training that came to its end."""

    config: Config
    seconds: float
    """From its start to its end, without what it lay stopped in between."""
    device: str
    accuracy: float
    """On the test images, of the selected epoch."""
    train_images: int | None
    """Of the whole data set, `limit` and holdout included; None where the run does not tell."""
    test_images: int | None


def finished_runs(tracking_uri: str | None, experiment: str | None) -> list[FinishedRun]:
    """The oldest first; none where the experiment is not there. RunError of one line, within seconds, without
    the server."""
    uri = resolve_uri(tracking_uri)
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():  # MLflow would make it
        raise RunError(f"there is no {path.name} yet")
    with opened(uri, timeout=2, advice="start it") as client:
        with suppress(InputError):  # the one that is named is not there yet
            runs = search(client, look_in(client, experiment), FINISHED_RUNS)
            return [known for run in runs if (known := _finished(run))]
        return []


def _finished(run: Run) -> FinishedRun | None:
    """None for a run that does not count, or is of knobs that there are no more."""
    config = None if unfit(run) else from_params(run.data.params)
    if config is None or run.info.end_time is None:
        return None
    seconds = (run.info.end_time - run.info.start_time) / 1000
    if each := run.data.metrics.get("speed/epoch_seconds"):  # of the last epoch, which is the dearest
        seconds = min(seconds, config.epochs * each + _BESIDE)
    images = profile(run)
    return FinishedRun(
        config=config,
        seconds=seconds,
        device=run.data.tags.get("device", "an unknown device"),
        accuracy=run.data.metrics[SELECTED],
        train_images=images.get("train_images"),
        test_images=images.get("test_images"),
    )


def profile(run: Run) -> dict[str, int]:
    """Numbers of the data set, as the run was given it: `train_images`, `test_images`, ..."""
    numbers: dict[str, int] = {}
    for item in run.inputs.dataset_inputs if run.inputs else ():
        try:
            told = json.loads(item.dataset.profile or "{}")
        except ValueError:
            continue
        if isinstance(told, dict):
            known = {key: value for key, value in told.items() if isinstance(value, int) and value > 0}
            numbers = known | numbers
    return numbers
