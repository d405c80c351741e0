"""A measurement that is no training, as a run of its own: its curve, its config, its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from imagenette.results import Status
from imagenette.tracking.client import opened
from imagenette.tracking.outbox import Card, now_ms
from imagenette.tracking.runs import create_run


def log_measurement(
    card: Card, curve: Mapping[str, Sequence[float]], files: Sequence[Path], *, tracking_uri: str | None
) -> str:
    """Write it at once, and return the run's id. curve: metric -> a value a step, from 1 on. RunError where
    the server is dead."""
    from mlflow.entities import Metric, Param

    with opened(tracking_uri, advice="start it, or use none (--offline)") as client:
        run_id = create_run(client, card).info.run_id
        params = [Param(name, value) for name, value in card.params.items()]
        client.log_batch(run_id, params=params, synchronous=True)
        now = now_ms()
        points = [
            Metric(name, value, now, step)
            for name, values in curve.items()
            for step, value in enumerate(values, start=1)
        ]
        for start in range(0, len(points), 1000):  # MLflow's largest batch
            client.log_batch(run_id, metrics=points[start : start + 1000], synchronous=True)
        for file in files:
            client.log_artifact(run_id, str(file))
        client.set_tag(run_id, "status", Status.FINISHED)
        client.set_terminated(run_id)
        return str(run_id)
