"""The tracker of rank 0: every record to the outbox first, then to MLflow from the sender's thread.

All through MlflowClient with explicit run ids; the fluent API, which adopts whatever run the
environment names, is never used.
"""

from __future__ import annotations

import math
import shutil
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from imagenette.processes import in_thread
from imagenette.records import Epoch, now_ms
from imagenette.results import Status
from imagenette.tracking import Tracker, environment, views
from imagenette.tracking.client import check_alive, resolve_uri
from imagenette.tracking.outbox import Card, Outbox, holds_run, read_card
from imagenette.tracking.outer_run import hand_over
from imagenette.tracking.provenance import process_tags, source_tags
from imagenette.tracking.runs import UID, reach
from imagenette.tracking.sender import Sender

_PREEMPTED_FLUSH_SECONDS = 8.0
"""A stopped job has little time before SIGKILL, and its resume sends the rest."""
_MODEL_TAGS = {"mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit"}


class MlflowTracker(Tracker):
    """Opens the run of the folder `output`, or goes on with it.

    MLflow's import alone takes about as long as torch's, and a training's first steps need nothing of it. So
    the run is found or made in a thread, which starts with `begin`, after the first step (it would otherwise
    wait for Python's lock), or with the first record. Every call but `begin` and `lost` waits for the run and
    raises what kept it from being opened. Whichever thread calls first, it is opened once: the watch over
    other hosts may have to close the tracker while the training's own thread hangs.
    """

    def __init__(
        self,
        output: Path,
        card: Card,
        *,
        tracking_uri: str | None,
        offline: bool,
        files: Sequence[Path] = (),
        history: Sequence[Epoch] = (),
    ) -> None:
        """Raises what needs no MLflow: RunError, in one line and within 10 s, if the server is dead;
        InputError if the folder belongs to a process that still trains.

        card: of a new run; an older run keeps its own. files, history: artifacts and epochs that are recorded
        as soon as the run is open; the checkpoint is ahead of the tracker, never behind.
        """
        environment.set_defaults()
        self._outer_run_id = environment.take_outer_run()
        stored_uri = read_card(output).tracking_uri if holds_run(output) else None
        self._uri = resolve_uri(tracking_uri or environment.tracking_uri() or stored_uri)
        self._offline = offline
        if not offline:
            check_alive(self._uri)  # before a folder or a run is made
        self._card, self._files, self._history = card, list(files), list(history)
        self._lock = threading.Lock()
        self._opening: Future[Sender | None] | None = None
        self._closed = False
        self._outbox = Outbox(output)
        old, outer = self._outbox.card, self._outer_run_id
        records = self._outbox.records
        if old is None or not records:  # a run that was never opened gets a new card
            uid = old.uid if old else card.uid
            self._outbox.write_card(replace(card, uid=uid, run_id=outer, adopted=outer is not None))
        elif old.run_id is None and outer:
            self._outbox.update_card(run_id=outer, adopted=True)
        self._epochs = {r.body["step"]: r.body for r in records if r.kind == "epoch"}
        results = [r.body for r in records if r.kind == "result"]
        self._last_result = max(((r["step"], r["timestamp"]) for r in results), default=(0, 0))

    @property
    def run_id(self) -> str | None:
        self._opened()
        return self._outbox.card.run_id if self._outbox.card else None

    @property
    def pages(self) -> list[str]:
        opening, card = self._opening, self._outbox.card
        if self._offline or not (opening and opening.done() and not opening.exception()) or card is None:
            return []
        run, experiment = card.run_id or "", card.experiment_id or ""
        found = [views.link_of_run(self._uri, experiment, run), views.link(self._uri, experiment)]
        return [page for page in found if page]

    @property
    def lost(self) -> bool:
        opening = self._opening
        return opening is not None and opening.done() and opening.exception() is not None

    def opened(self, *, within: float) -> bool:
        try:
            self._begun().result(within)
        except TimeoutError:
            return False
        return True

    def begin(self) -> None:
        self._begun()

    def log(self, epoch: Epoch) -> None:
        self._opened()
        self._log(epoch)

    def tag(self, **tags: str) -> None:
        self._opened()
        self._outbox.append("tags", tags=tags)

    def artifact(self, path: Path, folder: str = "") -> None:
        self._opened()
        self._artifact(path, folder)

    def model(self, name: str, path: Path, *, step: int, metrics: dict[str, float]) -> None:
        self._opened()
        epoch = self._epochs.get(step, {"timestamp": now_ms(), "metrics": {}})
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

    def result(self, metrics: dict[str, float]) -> None:
        self._opened()
        # At step 0 MLflow draws bars to compare. It shows the value with the highest (step, timestamp): a
        # later call must have a higher one, also than that of a run of before, at its last epoch.
        step, last_timestamp = self._last_result
        timestamp = max(now_ms(), last_timestamp + 1)
        self._last_result = step, timestamp
        self._outbox.append("result", metrics=finite(metrics), step=step, timestamp=timestamp)

    def close(self, status: Status, description: str | None = None) -> int:
        sender = self._opened()
        if self._closed:
            return self._outbox.lacking
        self._closed = True
        note = {"mlflow.note.content": description} if description else {}
        self._outbox.append(
            "end", tags={"status": status, **note}, mlflow_status=status.mlflow, time=now_ms()
        )
        if sender:
            sender.flush(most=_PREEMPTED_FLUSH_SECONDS if status == Status.PREEMPTED else None)
        lacking = self._outbox.lacking
        self._outbox.close()
        return lacking

    def _begun(self) -> Future[Sender | None]:
        with self._lock:
            if self._opening is None:
                self._opening = in_thread(self._open, name="imagenette-opening")
            return self._opening

    def _opened(self) -> Sender | None:
        """Waits for the run; its sender, None where no server is to be reached."""
        return self._begun().result()

    def _open(self) -> Sender | None:
        try:
            sender = None
            if not self._offline:
                client, card = reach(self._outbox, self._uri)
                assert card.run_id is not None
                if self._outer_run_id and self._outer_run_id != card.run_id:
                    hand_over(client, self._outer_run_id, card.run_id)
                sender = Sender(client, self._outbox, card, heartbeat=True)
            self._record_opening()
            for path in self._files:
                self._artifact(path)
            for epoch in self._history:
                self._log(epoch)
        except BaseException:
            self._outbox.close()
            raise
        if sender:
            sender.start()
        return sender

    def _record_opening(self) -> None:
        held, card = self._outbox.card, self._card
        assert held is not None
        alive = {**process_tags(), "status": Status.RUNNING}
        earlier = self._outbox.records
        # An attempt that was killed before its first record has nothing but the end that others wrote for it.
        if not any(record.kind == "open" for record in earlier):
            source = source_tags()
            if held.adopted:  # `mlflow run` knows better where the code came from
                source = {key: value for key, value in source.items() if not key.startswith("mlflow.")}
            parent = {"mlflow.parentRunId": card.parent_run_id} if card.parent_run_id else {}
            known = {UID: held.uid, "data_digest": card.dataset["digest"], "mlflow.runName": card.run_name}
            tags = {**source, **alive, **parent, **known, **card.tags}
            self._outbox.append("open", params=card.params, tags=tags, dataset=card.dataset)
        if earlier:
            trial = {name: text for name, text in card.tags.items() if name == "trial"}
            self._outbox.append("resume", tags={**alive, **trial})  # each attempt has its own trial

    def _log(self, epoch: Epoch) -> None:
        with self._lock:
            if epoch.index not in self._epochs:
                metrics = finite(epoch.metrics())
                body = {"step": epoch.index, "timestamp": epoch.timestamp, "metrics": metrics}
                self._outbox.append("epoch", **body)
                self._epochs[epoch.index] = body

    def _artifact(self, path: Path, folder: str = "") -> None:
        self._outbox.append("artifact", path=self._kept(path), folder=folder)

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


def finite(metrics: dict[str, float]) -> dict[str, Any]:
    """MLflow stores inf as 1.8e308, which then wins every search for the best; NaN it keeps as NaN."""
    return {key: float(value) if math.isfinite(value) else math.nan for key, value in metrics.items()}
