"""The thread that carries an outbox to the server: in order, patiently, never in training's way."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from imagenette.tracking.client import first_line
from imagenette.tracking.deliver import RefusedError, deliver
from imagenette.tracking.outbox import Card, Outbox, Record
from imagenette.tracking.provenance import HEARTBEAT, now

if TYPE_CHECKING:
    from mlflow import MlflowClient

HEARTBEAT_SECONDS = 30.0
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 3.0
"""Seconds between two tries: doubled after each failure."""
_SLOWEST_UPLOAD = 2e6
"""Bytes per second that a server still answering is granted for a model or a file at the end."""


class Sender(threading.Thread):
    """Delivers an outbox's pending records until flushed. A daemon: it never holds a process up."""

    def __init__(self, client: MlflowClient, outbox: Outbox, card: Card, *, heartbeat: bool) -> None:
        super().__init__(name="imagenette-sender", daemon=True)
        self._client, self._outbox, self._card, self._heartbeat = client, outbox, card, heartbeat
        self._stopping = threading.Event()
        self._last_beat = time.monotonic()  # opening the run was the first
        self._last_good = time.monotonic()
        self.problem: str | None = None
        """Why the last try failed; None after a success."""

    def run(self) -> None:
        wait = _FIRST_WAIT
        while not self._stopping.is_set():
            record = self._next()
            try:
                if record is not None:
                    self._send(record)
            except Exception as error:  # whatever it is, the record waits on disk and training goes on
                self._warn_once(first_line(error))
                self._stopping.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                wait = _FIRST_WAIT
                self._beat()

    def flush(self, *, most: float | None = None) -> None:
        """Wait until all is delivered, or nothing was for IMAGENETTE_FLUSH_SECONDS (30); then stop the
        thread.

        An upload under way on a server that answers gets longer, by its size. most: seconds in all, whatever
        the server does meanwhile.
        """
        seconds = float(os.environ.get("IMAGENETTE_FLUSH_SECONDS") or 30)
        start = time.monotonic()
        while self._outbox.pending and self.is_alive():
            end = max(start, self._last_good) + seconds + (0 if self.problem else self._upload_seconds())
            if most is not None:
                end = start + min(most, seconds)
            if end <= time.monotonic():
                break
            with self._outbox.changed:
                self._outbox.changed.wait(min(end - time.monotonic(), 0.5))
        self._stopping.set()
        with self._outbox.changed:
            self._outbox.changed.notify_all()
        if self.is_alive():
            self.join(timeout=1)  # for the call under way

    def _next(self) -> Record | None:
        with self._outbox.changed:
            if self._outbox.head() is None and not self._stopping.is_set():
                self._outbox.changed.wait(HEARTBEAT_SECONDS / 3)
            return self._outbox.head()

    def _send(self, record: Record) -> None:
        try:
            deliver(self._client, self._card, self._outbox.output, record)
        except RefusedError as refusal:
            print(f"imagenette: the tracking server refused {_describe(record)}: {refusal}", file=sys.stderr)
            self._outbox.refuse(record, str(refusal))
        else:
            self._outbox.ack(record)
        if self.problem is not None:
            print(f"imagenette: tracking server {self._card.tracking_uri} is back", file=sys.stderr)
        self.problem = None
        self._last_good = time.monotonic()

    def _beat(self) -> None:
        if not self._heartbeat or time.monotonic() - self._last_beat < HEARTBEAT_SECONDS:
            return
        self._last_beat = time.monotonic()
        assert self._card.run_id is not None
        try:
            self._client.set_tag(self._card.run_id, HEARTBEAT, now())
        except Exception as error:  # the next one may come through; no record is lost by it
            self._warn_once(first_line(error))

    def _warn_once(self, problem: str) -> None:
        if self.problem is None:
            print(
                f"imagenette: tracking server {self._card.tracking_uri} does not take records ({problem}); "
                f"training goes on, they are kept in {self._outbox.folder}",
                file=sys.stderr,
            )
        self.problem = problem

    def _upload_seconds(self) -> float:
        record = self._outbox.head()
        if record is None or "path" not in record.body:
            return 0.0
        path = self._outbox.output / record.body["path"]
        files = path.rglob("*") if path.is_dir() else [path]
        size: int = sum(file.stat().st_size for file in files if file.is_file())
        return size / _SLOWEST_UPLOAD


def _describe(record: Record) -> str:
    what = record.body.get("name") or record.body.get("path") or record.body.get("step")
    return f"record {record.seq + 1} ({record.kind}{'' if what is None else f' {what}'})"
