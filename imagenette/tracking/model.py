"""A saved model folder to a logged model of its run, as `Model.log` does it but repeatable.

MLflow's own `log_model` leaves the model PENDING when the server dies inside it, and makes a second
one when it is called again. Here the weights' digest names a model: a READY one with that digest is
done, a PENDING one is gone on with.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagenette.tracking.client import pages
from imagenette.tracking.outbox import Card

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

DIGEST = "imagenette.digest"


def deliver_model(client: MlflowClient, card: Card, output: Path, body: dict[str, Any]) -> None:
    """Create, upload, finalize, link to the run at its step, and give it its metrics."""
    assert card.run_id is not None
    path = output / body["path"]
    if not (path / "MLmodel").is_file():
        raise FileNotFoundError(f"{path} holds no model")
    model = _claim(client, card, body, digest=_digest(path))
    if model.status != "READY":
        _introduce(path, model, card.run_id)
        client.log_model_artifacts(model.model_id, str(path))
        client.finalize_logged_model(model.model_id, "READY")
    _link(client, card.run_id, model, step=body["step"])
    _measure(client, card.run_id, model, body)


def _claim(client: MlflowClient, card: Card, body: dict[str, Any], *, digest: str) -> LoggedModel:
    """The run's model of that name and content, made if need be; other unfinished ones are deleted."""
    assert card.run_id is not None
    assert card.experiment_id is not None
    whose = client, card.experiment_id, card.run_id, body["name"]
    ours = models_of(*whose)
    if not any(model.tags.get(DIGEST) == digest for model in ours):
        client.create_logged_model(
            card.experiment_id,
            name=body["name"],
            source_run_id=card.run_id,
            tags={DIGEST: digest, **body["tags"]},
            params=body["params"],
            model_type="image-classification",
        )
        ours = models_of(*whose)  # a repeated POST may have made two
    same = [model for model in ours if model.tags.get(DIGEST) == digest]
    chosen = next((model for model in same if model.status == "READY"), same[-1])  # else the oldest
    for model in ours:
        if model.status != "READY" and model.model_id != chosen.model_id:
            client.delete_logged_model(model.model_id)
    return chosen


def models_of(client: MlflowClient, experiment_id: str, run_id: str, name: str) -> list[LoggedModel]:
    """The logged models of that name that a run has, the newest first."""
    query = f"name = '{name}' AND source_run_id = '{run_id}'"
    return list(
        pages(
            lambda token: client.search_logged_models([experiment_id], filter_string=query, page_token=token)
        )
    )


def _introduce(path: Path, model: LoggedModel, run_id: str) -> None:
    """Write into MLmodel whose model it is, as `Model.log` does."""
    from mlflow.models import Model

    described = Model.load(str(path / "MLmodel"))
    described.run_id = run_id
    described.model_id = model.model_id
    described.model_uuid = model.model_id
    described.artifact_path = model.artifact_location
    described.save(str(path / "MLmodel.new"))
    (path / "MLmodel.new").replace(path / "MLmodel")


def _link(client: MlflowClient, run_id: str, model: LoggedModel, *, step: int) -> None:
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(run_id).outputs
    linked = {output.model_id for output in outputs.model_outputs} if outputs else set()
    if model.model_id not in linked:  # the server would add a second line
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=step)])


def _measure(client: MlflowClient, run_id: str, model: LoggedModel, body: dict[str, Any]) -> None:
    from mlflow.entities import Metric

    known = {metric.key for metric in client.get_logged_model(model.model_id).metrics or []}
    # The server files them under the run too; time and step being the epoch's, the run stays as it is.
    fresh = [
        Metric(key, value, body["timestamp"], body["step"], model_id=model.model_id, run_id=run_id)
        for key, value in body["metrics"].items()
        if key not in known
    ]
    if fresh:
        client.log_batch(run_id, metrics=fresh)


def _digest(path: Path) -> str:
    """Of the weights, and of everything if there are none; MLmodel changes when it is introduced."""
    digest = hashlib.sha256()
    files = [path / "weights.safetensors"]
    if not files[0].is_file():
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != "MLmodel")
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
