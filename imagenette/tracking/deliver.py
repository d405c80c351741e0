"""One record to its MLflow calls. Each may be repeated: what the server already has stays as it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from imagenette.tracking.client import RACES, first_line, retry_on
from imagenette.tracking.model import deliver_model
from imagenette.tracking.outbox import Card, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

_TAG_LIMIT = 8000  # characters; MLflow refuses longer values
_BATCH = 100  # params or tags in one call
_WORTH_RETRYING = {401, 403, 404, 408, 409, 429}
"""Client errors that pass: credentials and proxies get mended, a run comes back with its database."""
_Item = TypeVar("_Item")


class RefusedError(Exception):
    """The server answers, and will never take this record."""


def deliver(client: MlflowClient, card: Card, output: Path, record: Record) -> None:
    """Send a record; returns when the server has it.

    Raises RefusedError for a record that can never be sent; any other exception is worth another try.
    """
    assert card.run_id is not None
    try:
        _send(client, card.run_id, output, record)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RefusedError(first_line(error)) from error
    except Exception as error:
        if _is_refusal(error):
            raise RefusedError(first_line(error)) from error
        raise


def set_tags(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    """Set tags in as few calls as MLflow allows, values cut to its limit."""
    from mlflow.entities import RunTag

    for batch in _batches(list(tags.items())):
        client.log_batch(run_id, tags=[RunTag(key, value[:_TAG_LIMIT]) for key, value in batch])


def log_missing_params(client: MlflowClient, run: Run, params: dict[str, str]) -> None:
    """Params are immutable, and under `mlflow run` the raw text of -P is there before us."""
    from mlflow.entities import Param

    missing = [(key, value) for key, value in params.items() if key not in run.data.params]
    for batch in _batches(missing):
        client.log_batch(run.info.run_id, params=[Param(key, value) for key, value in batch])


def as_metrics(body: dict[str, Any]) -> list[Metric]:
    """`{"metrics": {...}, "timestamp": ms, "step": n}` as MLflow's entities."""
    from mlflow.entities import Metric

    return [Metric(key, value, body["timestamp"], body["step"]) for key, value in body["metrics"].items()]


@retry_on(*RACES)  # runs that begin together make the row of their data set in the same moment
def _send(client: MlflowClient, run_id: str, output: Path, record: Record) -> None:
    body = record.body
    match record.kind:
        case "open":
            run = client.get_run(run_id)
            log_missing_params(client, run, body["params"])
            set_tags(client, run_id, body["tags"])
            if not (run.inputs and run.inputs.dataset_inputs):
                client.log_inputs(run_id, [_dataset_input(body["dataset"])])
        case "resume":
            client.update_run(run_id, status="RUNNING")
            set_tags(client, run_id, body["tags"])
            if "reason" in client.get_run(run_id).data.tags:  # why it stopped before
                client.delete_tag(run_id, "reason")
        case "epoch" | "result":  # the timestamp is the record's own, so a repeat is stored once
            client.log_batch(run_id, metrics=as_metrics(body))
        case "tags":
            set_tags(client, run_id, body["tags"])
        case "artifact":
            path = output / body["path"]
            if not path.exists():
                raise FileNotFoundError(f"{path} is gone")
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            log(run_id, str(path), body["folder"] or None)
        case "model":
            deliver_model(client, run_id, output / body["path"], body)
        case "end":
            set_tags(client, run_id, body["tags"])
            client.set_terminated(run_id, status=body["mlflow_status"], end_time=body["time"])
        case kind:
            raise RefusedError(f"unknown kind {kind!r}")


def _dataset_input(dataset: dict[str, Any]) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    remote = "://" in dataset["source"]
    side = dataset["side"]
    features = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, side, side, 3]}}
    targets = {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}
    profile = {key: dataset[key] for key in ("train_images", "test_images", "classes", "side")}
    entity = Dataset(
        name=dataset["name"],
        digest=dataset["digest"][:8],  # what MLflow keeps of it; the tag data_digest has the rest
        source_type="http" if remote else "local",
        source=json.dumps({"url" if remote else "uri": dataset["source"]}),
        schema=json.dumps(
            {"mlflow_tensorspec": {"features": json.dumps([features]), "targets": json.dumps([targets])}}
        ),
        profile=json.dumps({"num_rows": dataset["train_images"], **profile}),
    )
    return DatasetInput(entity, tags=[InputTag("mlflow.data.context", "training")])


def _is_refusal(error: Exception) -> bool:
    """Whether the server understood the call and refused it; a dead, full or failing one did not."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    else:  # requests.HTTPError, from artifact uploads
        status = int(getattr(getattr(error, "response", None), "status_code", 0))
    return 400 <= status < 500 and status not in _WORTH_RETRYING


def _batches(items: Sequence[_Item]) -> Iterable[Sequence[_Item]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
