"""When a claim is given up for dead: its process is gone (same host), or its beat has not moved for `grace`
seconds as watched from here. No clocks are compared, and an outage of the database ages nobody."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from imagenette.processes import lives
from imagenette.study.identity import place
from imagenette.study.queue import Row


@dataclass
class StaleClaims:
    """Watches claims from one process, and finds those to give up."""

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
