"""A saved model folder to a logged model of its run, as `Model.log` does it but repeatable.

MLflow's own `log_model` leaves the model PENDING when the server dies inside it, and makes a second
one when it is called again. Here the weights' digest names a model: a READY one with that digest is
done, a PENDING one is gone on with.
"""

from __future__ import annotations

import filecmp
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from imagenette.tracking.client import pages

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

DIGEST = "imagenette.digest"
_LARGE = 1 << 20
"""Bytes from which a file is worth being stored once; small ones MLflow may write into."""


def deliver_model(client: MlflowClient, run_id: str, path: Path, body: dict[str, Any]) -> None:
    """Create, upload, finalize, link to the run at its step, and give it its metrics."""
    if not (path / "MLmodel").is_file():
        raise FileNotFoundError(f"{path} holds no model")
    run = client.get_run(run_id)
    model = _find_or_create(client, run, body, digest=digest_of(path))
    if model.status != "READY":
        _write_owner(path, model, run_id)
        for file, stored in _twins(path, model):
            if file.samefile(stored):
                stored.unlink()  # MLflow cannot copy a file onto itself
        client.log_model_artifacts(model.model_id, str(path))
        client.finalize_logged_model(model.model_id, "READY")
    _store_once(path, model)
    _link(client, run, model, step=body["step"])
    _log_metrics(client, run_id, model, body)


def models_of(client: MlflowClient, run: Run, name: str) -> list[LoggedModel]:
    """The logged models of that name that a run has, the newest first."""
    ids, query = [run.info.experiment_id], f"name = '{name}' AND source_run_id = '{run.info.run_id}'"
    return list(pages(lambda token: client.search_logged_models(ids, filter_string=query, page_token=token)))


def _find_or_create(client: MlflowClient, run: Run, body: dict[str, Any], *, digest: str) -> LoggedModel:
    """The run's model of that name and content, made if need be; other unfinished ones are deleted."""
    ours = models_of(client, run, body["name"])
    if not any(model.tags.get(DIGEST) == digest for model in ours):
        client.create_logged_model(
            run.info.experiment_id,
            name=body["name"],
            source_run_id=run.info.run_id,
            tags={DIGEST: digest, **body["tags"]},
            params=body["params"],
            model_type="image-classification",
        )
        ours = models_of(client, run, body["name"])  # a repeated POST may have made two
    same = [model for model in ours if model.tags.get(DIGEST) == digest]
    chosen = next((model for model in same if model.status == "READY"), same[-1])  # else the oldest
    for model in ours:
        if model.status != "READY" and model.model_id != chosen.model_id:
            client.delete_logged_model(model.model_id)
    return chosen


def _write_owner(path: Path, model: LoggedModel, run_id: str) -> None:
    """Write into MLmodel whose model it is, as `Model.log` does."""
    from mlflow.models import Model

    described = Model.load(str(path / "MLmodel"))
    described.run_id = run_id
    described.model_id = model.model_id
    described.model_uuid = model.model_id
    described.artifact_path = model.artifact_location
    described.save(str(path / "MLmodel.new"))
    (path / "MLmodel.new").replace(path / "MLmodel")


def _store_once(path: Path, model: LoggedModel) -> None:
    """Where the store lies on the same file system, let the large files here be the store's, by hard links.
    Neither is ever written into: both are only replaced."""
    for file, stored in _twins(path, model):
        beside = path.parent / f".{file.name}.once"  # not inside, where it might be sent
        with suppress(OSError):  # another file system, or one without links: then there are two
            if not file.samefile(stored) and filecmp.cmp(file, stored, shallow=False):
                beside.unlink(missing_ok=True)
                beside.hardlink_to(stored)
                beside.replace(file)


def _twins(path: Path, model: LoggedModel) -> list[tuple[Path, Path]]:
    """The large files, each with the store's of the same name; none where the store is no folder here."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    if urlsplit(model.artifact_location).scheme not in ("", "file"):
        return []
    store = Path(LocalArtifactRepository(model.artifact_location).artifact_dir)
    large = [file for file in path.rglob("*") if file.is_file() and file.stat().st_size >= _LARGE]
    found = [(file, store / file.relative_to(path)) for file in large]
    return [(file, stored) for file, stored in found if stored.is_file()]


def _link(client: MlflowClient, run: Run, model: LoggedModel, *, step: int) -> None:
    from mlflow.entities import LoggedModelOutput

    linked = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
    if model.model_id not in linked:  # the server would add a second line
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=step)])


def _log_metrics(client: MlflowClient, run_id: str, model: LoggedModel, body: dict[str, Any]) -> None:
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


def digest_of(path: Path) -> str:
    """Of the weights, or of every file if there are none, but MLmodel, into which the owner is written."""
    digest = hashlib.sha256()
    files = [path / "weights.safetensors"]
    if not files[0].is_file():
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != "MLmodel")
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
