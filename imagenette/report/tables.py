"""A study's tables for reading: text cells, in Markdown, LaTeX and HTML. Pure functions of the study. What is
missing is shown as missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagenette.report.compare import Comparison
from imagenette.report.conclusions import p_value
from imagenette.report.runs import ACCURACIES, BEST
from imagenette.report.study import Arm, Estimate, Study
from imagenette.results import METRICS

if TYPE_CHECKING:
    from imagenette.stats import Interval

MISSING = "missing"


@dataclass(frozen=True)
class Cell:
    text: str
    value: float | str | None = None
    """What a column is sorted by; None = the text."""
    detail: str = ""
    """The rest of the text: on a page below it, elsewhere after it."""
    hint: str = ""
    """More, for whoever points at it."""

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".strip()


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of text with what each is sorted by."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)]]
        lines += [[str(cell) for cell in row] for row in self.rows]
        return "".join(f"| {' | '.join(map(plain, line))} |\n" for line in lines)

    def latex(self) -> str:
        """For `\\usepackage{booktabs}`."""
        import pandas as pd

        rows = [[_latex(str(cell)) for cell in row] for row in self.rows]
        return str(
            pd.DataFrame(rows, columns=list(map(_latex, self.columns))).to_latex(
                index=False,
                escape=False,
                caption=_latex(self.caption),
                label=f"tab:{re.sub(r'[^A-Za-z0-9-]', '-', self.name)}",
                column_format="l" + "r" * (len(self.columns) - 1),
                position="htbp",
            )
        )


def plain(text: str) -> str:
    """As Markdown: no line breaks, and nothing that it would take for markup, a table's edge or a link."""
    return re.sub(r"([*<>`|]|(?<=\])\()", r"\\\1", " ".join(text.split()))


_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "[": "{[}",  # after \\ [ means something
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


# -- of a study ---------------------------------------------------------------------------------------


def arms_table(study: Study) -> Table:
    """A row an arm: accuracies, what was published, cost."""
    place = {arm.name: number for number, arm in enumerate(study.ranked)}  # sorts back into this order
    columns: dict[str, Callable[[Arm], Cell]] = {
        "trial" if study.search else "arm": lambda arm: Cell(arm.name, place[arm.name])
    }
    columns["n"] = _runs_cell
    if study.objective not in ACCURACIES and any(arm.shares(study.objective) for arm in study.arms):
        words = METRICS.get(study.objective, study.objective)
        columns[f"objective: {words}, %"] = _accuracy_column(study.objective)
    for metric, words in ACCURACIES.items():
        columns[f"{words}, %"] = _accuracy_column(metric)
    if any(BEST in arm.reference for arm in study.arms):
        columns["reference (one run), %"] = _reference
        columns["in our interval"] = lambda arm: inside(arm, study.other_conditions)
    columns["parameters, M"] = lambda arm: _quantity(arm.mean("parameters"), 1e-6, "{:.2f}")
    columns["MB"] = lambda arm: _quantity(arm.mean("weights_bytes"), 1e-6, "{:.1f}")
    columns["images/s"] = lambda arm: _quantity(arm.mean("images_per_second"), 1, "{:.0f}")
    columns["minutes a run"] = lambda arm: _quantity(arm.mean("seconds"), 1 / 60, "{:.1f}")
    for column, key, unit in (("reference: MB", "size_mb", 1.0), ("reference: hours", "hours", 1.0)):
        if any(f"reference/{key}" in arm.reference for arm in study.arms):
            columns[column] = _published(f"reference/{key}", unit)
    if len({run.tags.get("device") for run in study.runs}) > 1:  # else it stands above the table
        columns["device"] = device
    always = {"arm", "trial", "n", *(f"{words}, %" for words in ACCURACIES.values())}
    kept = {
        name: cell
        for name, cell in columns.items()
        if name in always or any(cell(arm).text not in ("", MISSING) for arm in study.arms)
    }
    gone = [name for name in columns if name not in kept]
    notes = [f"No run knows: {'; '.join(gone)}."] if gone and study.runs else []
    notes.append("Mean ± standard deviation over seeds [95 % interval].")
    if any(name.startswith("reference") for name in kept) and study.reference_source:
        notes.append(f"Reference: {study.reference_source}.")
    if study.other_conditions:
        notes.append(
            f"Our runs were {study.other_conditions}, which the reference's were not: its values are shown, "
            "not compared with."
        )
    return Table(
        name=f"{study.name}-arms",
        caption=f"{study.title}: every arm",
        columns=tuple(kept),
        rows=tuple(tuple(cell(arm) for cell in kept.values()) for arm in study.ranked),
        note=" ".join(notes),
    )


def comparisons_table(study: Study, comparisons: Sequence[Comparison]) -> Table:
    """A row for each arm but the baseline."""
    base = study.baseline.name if study.baseline else ""
    words = {"better": "better", "worse": "worse", "open": "no real difference shown"}
    return Table(
        name=f"{study.name}-comparisons",
        caption=f"{study.title}: against {base} ({ACCURACIES[study.metric]})",
        columns=(
            *("arm", "difference [95 %], points", "images alone right / wrong", "p over images"),
            *("p over seeds", "p, Holm", "verdict"),
        ),
        rows=tuple(
            (
                Cell(each.arm, number),
                _difference(each.value, each.interval),
                Cell(f"{each.images.better} / {each.images.worse}", each.surplus)
                if each.images
                else _none("unpaired"),
                _p(each.p_images),
                _p(each.p_seeds, "one run"),
                _p(each.p_corrected, "not tested"),
                Cell(words[each.verdict] if each.p is not None else "not tested"),
            )
            for number, each in enumerate(comparisons)
        ),
        note=f"Arm minus {base}. Holm's correction is over all {len(comparisons)}, of the larger p."
        if len(comparisons) > 1
        else f"Arm minus {base}.",
    )


def _accuracy_column(metric: str) -> Callable[[Arm], Cell]:
    return lambda arm: _accuracy(arm.estimate(metric), [(r.seed, r.share(metric)) for r in arm.runs])


def _accuracy(estimate: Estimate, runs: Sequence[tuple[int | None, float | None]]) -> Cell:
    if estimate.mean is None:
        return _none()
    each = ", ".join(f"seed {seed}: {100 * share:.2f}" for seed, share in runs if share is not None)
    spread = f" ± {100 * estimate.sd:.2f}" if estimate.sd is not None else ""
    one = " one run" if estimate.n == 1 else ""
    interval = f"[{_range(estimate.interval)}]" if estimate.interval else ""
    some = f" (n={estimate.n})" if 1 < estimate.n < len(runs) else ""
    said = f"{100 * estimate.mean:.2f}{spread}"
    return Cell(said, estimate.mean, detail=f"{interval}{one}{some}".strip(), hint=each)


def _runs_cell(arm: Arm) -> Cell:
    if not arm.missing:
        return Cell(str(len(arm.runs)), len(arm.runs))
    said = f"{len(arm.runs)} of {len(arm.runs) + len(arm.missing)}"
    return Cell(said, len(arm.runs), hint="; ".join(arm.missing))


def _reference(arm: Arm) -> Cell:
    value = arm.reference.get(BEST)
    return _none() if value is None else Cell(f"{100 * value:.2f}", value)


def inside(arm: Arm, other_conditions: str) -> Cell:
    value, estimate = arm.reference.get(BEST), arm.estimate(BEST)
    if value is None or estimate.interval is None:
        return _none("")
    if other_conditions:
        return Cell("not comparable", hint=other_conditions)
    if value in estimate.interval:
        return Cell("yes")
    return Cell("no, above" if value > estimate.interval.high else "no, below")


def _published(key: str, scale: float) -> Callable[[Arm], Cell]:
    return lambda arm: _quantity(arm.reference.get(key), scale, "{:g}")


def _quantity(value: float | None, scale: float, form: str) -> Cell:
    return _none() if value is None else Cell(form.format(value * scale), value)


def device(arm: Arm) -> Cell:
    devices = dict.fromkeys(run.tags["device"] for run in arm.runs if run.tags.get("device"))
    return Cell(", ".join(devices)) if devices else _none()


def _difference(value: float, interval: Interval | None) -> Cell:
    said = f"{100 * value:+.2f}".replace("-", "\N{MINUS SIGN}")
    span = f"[{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]" if interval else ""
    return Cell(said, value, detail=span.replace("-", "\N{MINUS SIGN}"))


def _range(interval: Interval) -> str:
    return f"{100 * interval.low:.2f}, {100 * interval.high:.2f}"


def _p(p: float | None, none: str = MISSING) -> Cell:
    return _none(none) if p is None else Cell(p_value(p).removeprefix("p = ").removeprefix("p "), p)


def _none(word: str = MISSING) -> Cell:
    return Cell(word, "")
