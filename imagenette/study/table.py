"""The cells of a study in words, and in a file: how far it is, what a cell is called, why one failed.

Pure functions of rows; knows no database, no MLflow, no torch, and loads nothing heavy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imagenette import artifacts
from imagenette.config import canonical
from imagenette.errors import as_line
from imagenette.results import Status

if TYPE_CHECKING:
    from imagenette.study.queue import Row


def is_done(row: Row) -> bool:
    return Status(row.state) is Status.FINISHED


def how_far(rows: Sequence[Row], noun: str = "cells") -> str:
    """`17 of 18 cells done, 1 failed`: of the other states, those that some cell is in."""
    count = Counter(row.word for row in rows)
    others = [f"{count[s]} {s}" for s in ("pruned", "running", "waiting", "failed") if count[s]]
    return ", ".join([f"{count['done']} of {len(rows)} {noun} done", *others])


def state_with_reason(row: Row, limit: int = 200) -> str:
    """`waiting`; `failed: loss not finite at epoch 1`."""
    return f"failed: {reason(row, limit)}" if row.state == Status.FAILED else row.word


def reason(row: Row, limit: int = 200) -> str:
    """Why it failed, fit for a table."""
    return as_line(row.reason or "no reason recorded", limit=limit)


def cell_name(row: Row) -> str:
    """`batch_size=16 seed=1`; in a search with what was drawn, to three digits: `trial 7: lr=0.0123`."""
    if "=" in row.cell:
        return row.cell
    drawn = in_words({knob: value for knob, value in row.values.items() if knob != "seed"})
    return f"{row.cell}: {drawn}" if drawn else row.cell


def in_words(drawn: Mapping[str, Any]) -> str:
    """What a search drew, to three digits: `lr=0.0123 flip=true`."""
    return " ".join(
        f"{knob}={value:.3g}" if isinstance(value, float) else f"{knob}={canonical(value)}"
        for knob, value in drawn.items()
    )


def csv_text(rows: Sequence[Row], *, objective: str) -> str:
    """One line a cell, in the study's order: state, knobs, objective and metrics (shares in [0, 1]), seconds,
    run, reason. Numbers are written so that they read back the same."""
    knobs = dict.fromkeys(["seed", *(knob for row in rows for knob in row.values)])
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    last = ("seconds", "run_id", "reused", "host", "trial", "attempt", "reason")
    columns = ["cell", "arm", "state", *knobs, "objective", "value", *metrics, *last]
    cells = []
    for row in sorted(rows, key=lambda row: row.position):
        own = {name: getattr(row, name) for name in ("cell", "arm", "value", *last)}
        values = {knob: canonical(value) for knob, value in row.values.items()}
        cells.append({**own, **values, **row.metrics, "state": row.word, "objective": objective})
    return artifacts.csv_text(cells, columns)
