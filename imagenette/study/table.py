"""What a study amounts to so far, as a table and a description. Pure functions of its cells; knows no
database, no MLflow, no torch. Claims nothing about significance: that is the report's."""

from __future__ import annotations

import csv
import io
import itertools
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from imagenette.config import canonical
from imagenette.results import METRICS, Status

if TYPE_CHECKING:
    from imagenette.study.queue import Row

LIMIT = 7900
"""Characters of a description: MLflow cuts a tag at 8000, in the middle of a line."""
TESTS = ("selected/test_accuracy", "final/test_accuracy", "best/test_accuracy")
References = Mapping[str, Mapping[str, float]]
"""Arm -> metric -> published value, a share in [0, 1]."""

REFERENCE = "reference: best epoch on test, one run"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What n runs gave."""

    n: int
    mean: float | None
    """None of no runs."""
    sd: float | None
    """Sample standard deviation (n - 1), in the mean's unit; None of fewer than two runs."""

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        held = [value for value in values if value is not None]
        mean = statistics.fmean(held) if held else None
        return cls(n=len(held), mean=mean, sd=statistics.stdev(held) if len(held) > 1 else None)

    def percent(self) -> str:
        """Of shares: `92.41 ± 0.20 (n=3)`, `92.41 (one run)`, and `missing` of none."""
        if self.mean is None:
            return "missing"
        if self.sd is None:
            return f"{100 * self.mean:.2f} (one run)"
        return f"{100 * self.mean:.2f} ± {100 * self.sd:.2f} (n={self.n})"


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm: the runs that differ in their seed only; in a search, one trial. Accuracies are shares."""

    arm: str
    done: int
    planned: int
    objective: Spread
    tests: dict[str, Spread]
    """The three test accuracies, by metric: selected, final, best."""
    reference: float | None
    """Published accuracy of the best epoch on the test set."""
    missing: tuple[str, ...]
    """Planned and not done: `seed=3: failed: loss not finite at epoch 1`, `seed=2: waiting`."""
    seconds: float | None
    """Mean duration of the runs that were trained here, not taken from another study."""


def arm_rows(
    arms: Sequence[str], seeds: Sequence[int], references: References, rows: Sequence[Row]
) -> list[ArmRow]:
    """Every arm in the study's order, finished or not. Without `arms`, a search: every finished trial is an
    arm, the highest objective first; pruned and failed ones are left out (`how_far` counts them)."""
    if not arms:
        ranked = sorted(
            done_rows(rows), key=lambda r: (float("inf") if r.value is None else -r.value, r.position)
        )
        return [_arm_row(cell_name(row), {row.values.get("seed"): row}, references) for row in ranked]
    found = {(row.arm, row.values.get("seed")): row for row in rows}
    return [_arm_row(arm, {seed: found.get((arm, seed)) for seed in seeds}, references) for arm in arms]


def _arm_row(arm: str, cells: Mapping[Any, Row | None], references: References) -> ArmRow:
    done = done_rows([row for row in cells.values() if row])
    return ArmRow(
        arm=arm,
        done=len(done),
        planned=len(cells),
        objective=Spread.of(row.value for row in done),
        tests={name: Spread.of(row.metrics.get(name) for row in done) for name in TESTS},
        reference=references.get(arm, {}).get("best/test_accuracy"),
        missing=tuple(f"seed={seed}: {_why(row)}" for seed, row in cells.items() if row not in done),
        seconds=Spread.of(row.seconds for row in done if row.reused is None).mean,
    )


def how_far(rows: Sequence[Row], noun: str = "cells") -> str:
    """`17 of 18 cells done, 1 failed`: of the other states, those that some cell is in."""
    count = Counter(row.word for row in rows)
    others = [f"{count[s]} {s}" for s in ("pruned", "running", "waiting", "failed") if count[s]]
    return ", ".join([f"{count['done']} of {len(rows)} {noun} done", *others])


def one_line(reason: str | None, limit: int = 200) -> str:
    """A reason fit for a table: no line breaks or terminal codes, at most `limit` characters."""
    plain = "".join(c if c.isprintable() else " " for c in reason or "no reason recorded")
    line = " ".join(plain.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def done_rows(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.state == Status.FINISHED]


def _why(row: Row | None) -> str:
    if row is None:
        return "waiting"
    return f"failed: {one_line(row.reason)}" if row.state == "failed" else row.word


def cell_name(row: Row) -> str:
    """`batch_size=16 seed=1`; in a search with what was drawn, to three digits: `trial 7: lr=0.0123`."""
    if "=" in row.cell:
        return row.cell
    said = in_words({knob: value for knob, value in row.values.items() if knob != "seed"})
    return f"{row.cell}: {said}" if said else row.cell


def in_words(drawn: Mapping[str, Any]) -> str:
    """What a search drew, to three digits: `lr=0.0123 flip=true`."""
    said = [f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={canonical(v)}" for k, v in drawn.items()]
    return " ".join(said)


# -- the description in MLflow -------------------------------------------------------------------------


def markdown(
    title: str,
    *,
    objective: str,
    reads_test: bool,
    arms: Sequence[str],
    seeds: Sequence[int],
    references: References,
    rows: Sequence[Row],
    importances: Mapping[str, float] | None = None,
    evaluator: str = "",
) -> str:
    """The parent run's description, at most LIMIT characters: arms that do not fit are counted.

    importances: knob -> share of the objective's variation, as Optuna's `evaluator` sees it.
    """
    table = arm_rows(arms, seeds, references, rows)
    reused = sum(row.reused is not None for row in rows)
    taken = f" ({reused} taken from identical runs of other studies)" if reused else ""
    head = [f"# {title}", "", f"**{how_far(rows, 'cells' if arms else 'trials')}**{taken}", ""]
    head += [_measured_on(objective, reads_test), ""]
    if not arms and len(table) > 1:
        head += [f"The first trial below is the best of {len(table)} by that number, which flatters it.", ""]
    tail = [*_failures(rows), *_importances(importances or {}, evaluator, table)]
    columns = _columns("arm" if arms else "trial", objective, table, rows)
    head += [_line(columns), _line(["---", *["---:"] * (len(columns) - 1)])] if table else []
    room = LIMIT - sum(len(line) + 1 for line in [*head, *tail]) - 80
    lines = [_line([cell(row) for cell in columns.values()]) for row in table]
    used = list(itertools.accumulate(len(line) + 1 for line in lines))
    shown = sum(total <= room for total in used)
    cut = [f"\n… and {len(lines) - shown} more: the table of every cell has them."] * (shown < len(lines))
    return "\n".join([*head, *lines[:shown], *cut, *tail])[:LIMIT].rstrip() + "\n"


def _measured_on(objective: str, reads_test: bool) -> str:
    said = f"Objective: `{objective}` ({METRICS.get(objective, objective)}), maximized"
    if reads_test:
        return f"{said}. **It is measured on the test set: the test set chose, so the numbers flatter.**"
    return (
        f"{said}; measured on the holdout, images that were kept out of training. The test set chose nothing "
        "but the epoch in the column of its best epoch, which flatters."
    )


def _columns(
    first: str, objective: str, table: Sequence[ArmRow], rows: Sequence[Row]
) -> dict[str, Callable[[ArmRow], str]]:
    """Header -> cell. Columns that would be empty, or the same twice, are left out."""
    columns: dict[str, Callable[[ArmRow], str]] = {
        first: lambda row: row.arm,
        f"objective: {METRICS.get(objective, objective)}, %": lambda row: row.objective.percent(),
    }
    held_out = any("selected/holdout_accuracy" in row.metrics for row in rows)
    for name in TESTS if held_out else TESTS[1:]:  # without a holdout the selected epoch is the best on test
        if name != objective and any(row.tests[name].n for row in table):
            columns[f"{METRICS[name]}, %"] = partial(_percent, name)
    if any(row.reference is not None for row in table):
        columns[f"{REFERENCE}, %"] = lambda r: "" if r.reference is None else f"{100 * r.reference:.2f}"
    if any(row.missing for row in table):
        columns["missing"] = lambda row: _grouped(row.missing)
    if any(row.seconds is not None for row in table):
        columns["minutes a run"] = lambda row: "" if row.seconds is None else f"{row.seconds / 60:.1f}"
    return columns


def _percent(metric: str, row: ArmRow) -> str:
    return row.tests[metric].percent()


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _grouped(missing: Sequence[str]) -> str:
    """`failed: seed=3; waiting: seed=4, seed=5`: the reasons stand below the table."""
    by_state: dict[str, list[str]] = {}
    for said in missing:
        seed, state = said.split(": ")[:2]
        by_state.setdefault(state, []).append(seed)
    return "; ".join(f"{state}: {', '.join(seeds)}" for state, seeds in by_state.items())


def _failures(rows: Sequence[Row], most: int = 8) -> list[str]:
    failed = [row for row in rows if row.state == "failed"]
    named = [
        f"- {row.cell} (attempt {row.attempt}): `{one_line(row.reason).replace('`', chr(39))}`"
        for row in failed[:most]
    ]
    more = [f"- … and {len(failed) - most} more"] * (len(failed) > most)
    return ["", "**Failed**", "", *named, *more] if failed else []


def _importances(importances: Mapping[str, float], evaluator: str, table: Sequence[ArmRow]) -> list[str]:
    if not importances:
        return []
    n = sum(row.done > 0 for row in table)
    ranked = sorted(importances.items(), key=lambda item: -item[1])
    shares = ", ".join(f"`{knob}` {share:.0%}" for knob, share in ranked)
    noise = " What `seed` explains is noise." * ("seed" in importances)
    few = " **Fewer than three arms: these shares mean nothing yet.**" * (n < 3)
    return ["", f"Share of the objective's variation by knob ({evaluator}, {n} arms): {shares}.{noise}{few}"]


# -- every cell ----------------------------------------------------------------------------------------


def csv_text(rows: Sequence[Row], *, objective: str) -> str:
    """One line a cell, in the study's order: state, knobs, objective and metrics (shares in [0, 1]), seconds,
    run, reason. Numbers are written so that they read back the same."""
    knobs = dict.fromkeys(["seed", *(knob for row in rows for knob in row.values)])
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    told = ("seconds", "run_id", "reused", "host", "trial", "attempt", "reason")
    columns = ["cell", "arm", "state", *knobs, "objective", "value", *metrics, *told]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in sorted(rows, key=lambda row: row.position):
        own = {name: getattr(row, name) for name in ("cell", "arm", "value", *told)} | {"state": row.word}
        values = {knob: canonical(value) for knob, value in row.values.items()}
        writer.writerow({**own, **values, **row.metrics, "objective": objective})
    return text.getvalue()
