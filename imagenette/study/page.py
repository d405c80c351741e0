"""Keeps the parent run of a study current in MLflow: description, table, cells, figure, counts."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from imagenette.files import write_whole
from imagenette.results import Status
from imagenette.study.as_report import markdown, write_figure
from imagenette.study.definition import Definition
from imagenette.study.queue import Row
from imagenette.study.table import csv_text, is_done
from imagenette.study.trials import IMPORTANCE, importances
from imagenette.tracking.parent import StudyRun

REFRESH = 10.0  # seconds between two versions of the table
HEARTBEAT = 60.0  # seconds between two signs of life


def describe(definition: Definition, rows: Sequence[Row], shares: Mapping[str, float]) -> str:
    """The parent run's description, in Markdown."""
    return markdown(definition.outline(), rows, shares, evaluator=IMPORTANCE)


class Page:
    """What the parent run shows of the study so far, brought up to date every now and then."""

    def __init__(self, definition: Definition, parent: StudyRun, folder: Path) -> None:
        self._definition, self.parent, self._folder = definition, parent, folder
        self._shown: list[tuple[str, int]] = []
        self._next_table = self._next_beat = 0.0
        self._description = ""

    def refresh(self, rows: Sequence[Row], *, now: bool = False) -> bool:
        """Bring the parent run up to date if it is time to; False where the server could not take it."""
        clock = time.monotonic()
        state = [(row.word, row.attempt) for row in rows]
        fresh = state != self._shown and clock >= self._next_table
        if not (now or fresh or clock >= self._next_beat):
            return True
        self._description = description = describe(
            self._definition, rows, importances(rows, search=self._definition.search)
        )
        files = self._write(rows, description)
        done = sum(map(is_done, rows))
        known = self.parent.refresh(
            files=files, description=description, metrics=self._metrics(rows), step=done
        )
        self._shown = state if known else []
        # Drawing a study of thousands takes seconds: spend a twentieth of the time on it.
        self._next_table = time.monotonic() + max(REFRESH, 20 * (time.monotonic() - clock))
        self._next_beat = time.monotonic() + HEARTBEAT
        return known

    def end(self, rows: Sequence[Row], status: Status, reason: str) -> bool:
        """The last version; then the parent run is closed."""
        known = self.refresh(rows, now=True)
        return self.parent.end(status, reason=reason, description=self._description) and known

    def _write(self, rows: Sequence[Row], description: str) -> list[Path]:
        """Files in the study's folder; none, with a line that says why, where the disk is full."""
        files = [self._folder / name for name in ("table.md", "cells.csv", "figure.png")]
        try:
            write_whole(files[0], description)
            write_whole(files[1], csv_text(rows, objective=self._definition.objective))
            write_figure(files[2], self._definition.outline(), rows)
        except OSError as error:
            print(f"imagenette: {self._folder}: {error.strerror}", file=sys.stderr)
            return []
        return files

    def _metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        values = [row.value for row in rows if is_done(row) and row.value is not None]
        best = {"objective/best": max(values)} if values else {}
        words = Counter(row.word for row in rows)
        return {f"cells/{state}": float(words[state]) for state in ("done", "failed", "pruned")} | best
