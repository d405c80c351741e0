"""How each attempt at a cell ends: written into the row first, which decides, then into Optuna; or given up,
as its worker is dead."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from imagenette.processes import lives, place
from imagenette.results import Status
from imagenette.study.queue import MOST_LOSSES, Queue, Row
from imagenette.study.storage import Patience
from imagenette.study.trials import Trials
from imagenette.tracking.outbox import holds_run, read_card
from imagenette.training.job import Result


class Lost(Exception):
    """Another worker has the cell now."""


@dataclass
class StaleClaims:
    """Finds the claims to give up: their process is gone (same host), or their beat has not moved for `grace`
    seconds as watched from here. No clocks are compared, and an outage of the database ages nobody."""

    grace: float
    """Seconds without a beat."""
    here: str = field(default_factory=place)
    _seen: dict[tuple[str, int], tuple[int, float]] = field(default_factory=dict)
    """Cell and attempt -> its beat, and since when it has stood at that."""
    _last: float = 0.0

    def find(self, running: Sequence[Row], *, now: float | None = None) -> list[tuple[Row, str]]:
        """Rows to take back, each with its reason. now: seconds of a monotonic clock."""
        now = time.monotonic() if now is None else now
        if now - self._last > self.grace / 3:  # we were frozen or waiting ourselves: nobody was watched
            self._seen.clear()
        self._last = now
        kept: dict[tuple[str, int], tuple[int, float]] = {}
        found = []
        for row in running:
            key = row.cell, row.attempt
            beat, since = self._seen.get(key, (row.beat, now))
            kept[key] = (beat, since) if beat == row.beat else (row.beat, now)
            if row.place == self.here and not lives(row.pid or 0, row.pid_started or 0.0):
                found.append((row, f"worker process {row.pid} on {row.host} is gone"))
            elif now - kept[key][1] > self.grace:
                found.append((row, f"no sign of life from {row.host} for {self.grace:g} s"))
        self._seen = kept
        return found


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A study's rows and its trials in Optuna, kept in step by one process."""

    queue: Queue
    trials: Trials
    objective: str
    """Metric of a finished training that is maximized."""
    patience: Patience

    def close(self, row: Row, result: Result) -> None:
        """End a claimed cell as its training ended, or give it back to be tried again. `Lost` if it is no
        longer this worker's."""
        state, reason, recorded, losses = result.status, result.message or None, result.recorded, row.losses
        value = result.metrics.get(self.objective)
        if state == Status.FINISHED and (value is None or not math.isfinite(value)):
            state, reason, recorded = Status.FAILED, f"its objective {self.objective} is {value}", False
        elif state == Status.UNTRACKED:
            losses += 1
            state = Status.FAILED if losses >= MOST_LOSSES else Status.WAITING
            recorded = False
        elif state == Status.PREEMPTED:
            state = Status.WAITING
        run_id = result.run_id or (run_of(Path(row.output)) if row.output else None)
        known: dict[str, Any] = {
            "run_id": run_id,
            "seconds": (row.seconds or 0.0) + time.time() - (row.started or time.time()),
            "reason": reason,
            "losses": losses,
            "unsynced": result.unsynced,
            "marked": int(recorded),
        }
        if state == Status.FINISHED:
            known |= {"value": value, "metrics": result.metrics, "progress": 1.0}
        if not self.patience(lambda: self.queue.finish(row, state, **known)):
            raise Lost
        assert row.trial_id is not None
        # Optuna's trial is over either way; a cell that waits again gets another one.
        ended = Status.FAILED if state == Status.WAITING else state
        about = {"reason": reason, "run_id": run_id, "output": row.output}
        self.patience(partial(self.trials.close, row.trial_id, ended, known.get("value"), **about))

    def take_back(self, claims: StaleClaims) -> None:
        """Free the cells of workers that are gone or frozen."""
        for row, reason in claims.find(self.patience(self.queue.running)):
            if self.patience(partial(self.queue.take_back, row, reason)):
                print(f"imagenette: {row.cell}: {reason}; it is tried again", file=sys.stderr)
                if row.trial_id is not None:
                    self.patience(
                        partial(self.trials.close, row.trial_id, Status.FAILED, None, reason=reason)
                    )

    def reconcile(self) -> None:
        """Close the trials that dead workers left open."""
        self.patience(lambda: self.trials.reconcile(self.queue.rows))


def run_of(output: Path) -> str | None:
    """The MLflow run of a training's folder, where it got that far."""
    return read_card(output).run_id if holds_run(output) else None
