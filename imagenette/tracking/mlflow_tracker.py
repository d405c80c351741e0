"""The tracker of rank 0: every record to the outbox first, then to MLflow from the sender's thread.

All through MlflowClient with explicit run ids; the fluent API, which adopts whatever run the
environment names, is never used.
"""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imagenette.errors import InputError
from imagenette.records import Epoch
from imagenette.tracking import RunHeader
from imagenette.tracking.client import check_alive, resolve_uri, set_environment
from imagenette.tracking.outbox import Card, Outbox, holds_run, read_card
from imagenette.tracking.provenance import process_tags, source_tags
from imagenette.tracking.runs import UID, hand_over, reach
from imagenette.tracking.sender import Sender

MLFLOW_STATUS = {"finished": "FINISHED", "preempted": "KILLED", "pruned": "KILLED"}
"""MLflow's word for ours; any other is FAILED."""
_PREEMPTED_FLUSH_SECONDS = 8.0
"""A stopped job has little time before SIGKILL, and its resume sends the rest."""


class MlflowTracker:
    """See `imagenette.tracking.Tracker`."""

    lost = False

    def __init__(self, outbox: Outbox, sender: Sender | None) -> None:
        self._outbox, self._sender = outbox, sender
        self._epochs = {r.body["step"]: r.body for r in outbox.records if r.kind == "epoch"}
        results = [r.body for r in outbox.records if r.kind == "result"]
        self._last_result = max(((r["step"], r["timestamp"]) for r in results), default=(0, 0))
        self._lock = threading.Lock()
        self._open = True

    @property
    def run_id(self) -> str | None:
        return self._outbox.card.run_id if self._outbox.card else None

    def begin(self) -> None:
        pass

    def log(self, epoch: Epoch) -> None:
        with self._lock:
            if epoch.index in self._epochs:
                return
            body = {
                "step": epoch.index,
                "timestamp": epoch.timestamp,
                "metrics": finite(epoch.metrics()),
            }
            self._outbox.append("epoch", **body)
            self._epochs[epoch.index] = body

    def tag(self, **tags: str) -> None:
        self._outbox.append("tags", tags=tags)

    def artifact(self, path: Path, folder: str = "") -> None:
        self._outbox.append("artifact", path=self._kept(path), folder=folder)

    def model(self, name: str, path: Path, *, step: int, metrics: dict[str, float]) -> None:
        epoch = self._epochs.get(step, {"timestamp": _milliseconds(), "metrics": {}})
        opened: dict[str, Any] = next(
            (r.body for r in self._outbox.records if r.kind == "open"), {"params": {}, "tags": {}}
        )
        self._outbox.append(
            "model",
            name=name,
            path=self._kept(path),
            step=step,
            timestamp=epoch["timestamp"],
            # Under an epoch's own names the epoch's own values: its step stays one point in the run.
            metrics=finite(metrics) | epoch["metrics"],
            params=opened["params"],
            tags={key: value for key, value in opened["tags"].items() if key in _MODEL_TAGS},
        )

    def result(self, metrics: dict[str, float], step: int) -> None:
        # MLflow shows the value with the highest (step, timestamp): a later call must have a higher one.
        last_step, last_timestamp = self._last_result
        step, timestamp = max(step, last_step), max(_milliseconds(), last_timestamp + 1)
        self._last_result = step, timestamp
        self._outbox.append("result", metrics=finite(metrics), step=step, timestamp=timestamp)

    def close(self, status: str, description: str | None = None) -> int:
        if not self._open:
            return self._outbox.lacking
        self._open = False
        note = {"mlflow.note.content": description} if description else {}
        self._outbox.append(
            "end",
            tags={"status": status, **note},
            mlflow_status=MLFLOW_STATUS.get(status, "FAILED"),
            time=_milliseconds(),
        )
        if self._sender:
            preempted = status == "preempted"
            seconds = flush_seconds()
            self._sender.flush(
                min(seconds, _PREEMPTED_FLUSH_SECONDS) if preempted else seconds, strict=preempted
            )
            self._sender.stop()
        lacking = self._outbox.lacking
        self._outbox.close()
        return lacking

    def _kept(self, path: Path) -> str:
        """The path inside the output folder, so that the folder can be moved; copied in if outside."""
        path = path.resolve()
        if not path.exists():
            raise FileNotFoundError(path)
        if not path.is_relative_to(self._outbox.output):
            inside = self._outbox.folder / "files" / uuid.uuid4().hex[:8] / path.name
            inside.parent.mkdir(parents=True)
            _ = shutil.copytree(path, inside) if path.is_dir() else shutil.copy2(path, inside)
            path = inside
        return path.relative_to(self._outbox.output).as_posix()


_MODEL_TAGS = {"mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit"}


def open_mlflow_tracker(
    output: Path, header: RunHeader, *, tracking_uri: str | None, offline: bool, resume: bool
) -> Callable[[], MlflowTracker]:
    """See `imagenette.tracking.begin_tracker`."""
    set_environment()
    outer_run_id = os.environ.pop("MLFLOW_RUN_ID", None)  # so that no fluent call adopts it
    stored_uri = read_card(output).tracking_uri if holds_run(output) else None
    uri = resolve_uri(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or stored_uri)
    if not offline:
        check_alive(uri)  # before a folder or a run is made, and before MLflow's import
    outbox = Outbox(output)

    def reach_run() -> MlflowTracker:
        with _closed_on_failure(outbox):
            sender = None if offline else _sender(outbox, uri, outer_run_id)
            _record_opening(outbox, header)
            if sender:
                sender.start()
            return MlflowTracker(outbox, sender)

    with _closed_on_failure(outbox):
        card = outbox.card
        if card and outbox.records and not resume:
            raise InputError(
                f"output={output} already holds run {card.run_id or card.uid}: "
                "resume it, or name another folder"
            )
        if card is None or not outbox.records:
            outbox.introduce(_card(header, card.uid if card else None, outer_run_id))
        elif card.run_id is None and outer_run_id:
            outbox.learn(run_id=outer_run_id, adopted=True)
        return reach_run


@contextmanager
def _closed_on_failure(outbox: Outbox) -> Iterator[None]:
    try:
        yield
    except BaseException:
        outbox.close()
        raise


def flush_seconds() -> float:
    """IMAGENETTE_FLUSH_SECONDS: how long `close` waits for a server that takes nothing; 30."""
    return float(os.environ.get("IMAGENETTE_FLUSH_SECONDS") or 30)


def _card(header: RunHeader, uid: str | None, outer_run_id: str | None) -> Card:
    return Card(
        uid=uid or uuid.uuid4().hex,
        experiment=header.experiment,
        run_name=header.run_name,
        tags=header.tags,
        start_time=_milliseconds(),
        parent_run_id=header.parent_run_id,
        run_id=outer_run_id,
        adopted=outer_run_id is not None,
    )


def _sender(outbox: Outbox, uri: str, outer_run_id: str | None) -> Sender:
    client, card = reach(outbox, uri)
    assert card.run_id is not None
    if outer_run_id and outer_run_id != card.run_id:
        hand_over(client, outer_run_id, card.run_id)
    return Sender(client, outbox, card, heartbeat=True)


def _record_opening(outbox: Outbox, header: RunHeader) -> None:
    card = outbox.card
    assert card is not None
    alive = {**process_tags(), "status": "running"}
    if outbox.records:
        trial = {
            name: text for name, text in header.tags.items() if name == "trial"
        }  # each attempt has its own
        outbox.append("resume", tags={**alive, **trial})
        return
    source = source_tags()
    if card.adopted:  # `mlflow run` knows better where the code came from
        source = {key: value for key, value in source.items() if not key.startswith("mlflow.")}
    parent = {"mlflow.parentRunId": card.parent_run_id} if card.parent_run_id else {}
    outbox.append(
        "open",
        params=header.params,
        tags={
            **source,
            **alive,
            **parent,
            UID: card.uid,
            "data_digest": header.dataset.digest,
            "mlflow.runName": header.run_name,
            **header.tags,
        },
        dataset=asdict(header.dataset),
    )


def finite(metrics: dict[str, float]) -> dict[str, Any]:
    """MLflow stores inf as 1.8e308, which then wins every search for the best; NaN it keeps as NaN."""
    return {key: float(value) if math.isfinite(value) else math.nan for key, value in metrics.items()}


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
