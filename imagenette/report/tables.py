"""A study's tables for reading: text cells, in Markdown, LaTeX and HTML. Pure functions of the study. What is
missing is shown as missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagenette.report.compare import Comparison
from imagenette.report.conclusions import p_value, points
from imagenette.report.findings import Findings
from imagenette.report.study import Arm, Study
from imagenette.results import BEST, METRICS, SELECTED, TEST_ACCURACIES
from imagenette.stats import LEVEL, one_more_seed, unpaired_shares

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
        head, *rows = ([plain(str(cell)) for cell in row] for row in (self.columns, *self.rows))
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

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
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


_MARKUP = re.compile(
    r"([\\*<>`|$&~]|(?<=\])[(\[]|(?<![^\W_])_|_(?![^\W_])"  # anywhere; an underscore inside a word is one
    r"|^[#=]|^[-+](?=\s|$)|(?<=^\d)[.)](?=\s|$)|(?<=^\d\d)[.)](?=\s|$)|^-(?=-))"  # at its beginning
)


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


def arms_table(study: Study, *, so_far: bool = False) -> Table:
    """A row an arm: accuracies, what was published, cost.

    so_far: of a study under way, without intervals; columns say what is missing, and only what is there.
    """
    place = {arm.name: number for number, arm in enumerate(study.ranked)}  # sorts back into this order
    columns: dict[str, Callable[[Arm], Cell]] = {
        "trial" if study.search else "arm": lambda arm: Cell(arm.name, place[arm.name]),
        "n": _runs,
    }
    if study.objective not in TEST_ACCURACIES and any(arm.shares(study.objective) for arm in study.arms):
        words = METRICS.get(study.objective, study.objective)
        columns[f"objective: {words}, %"] = _accuracy(study.objective, intervals=not so_far)
    for metric, words in TEST_ACCURACIES.items():
        columns[f"{words}, %"] = _accuracy(metric, intervals=not so_far)
    if so_far and study.chosen_on_test and study.objective != SELECTED:
        del columns[f"{METRICS[SELECTED]}, %"]  # it is the best epoch on the test set
    published = {key for arm in study.arms for key in arm.reference}
    if BEST in published:
        columns["reference (best epoch, one run), %"] = _published(BEST, 100, "{:.2f}")
        if not so_far:
            columns["compatible with ours"] = lambda arm: compatible(arm, study.other_conditions)
    columns["parameters, M"] = _mean("parameters", 1e-6, "{:.2f}")
    columns["MB"] = _mean("weights_bytes", 1e-6, "{:.1f}")
    columns["images/s"] = _mean("images_per_second", 1, "{:.0f}")
    columns["minutes a run"] = _mean("seconds", 1 / 60, "{:.1f}")
    for column, key in (("reference: MB", "reference/size_mb"), ("reference: hours", "reference/hours")):
        if key in published:
            columns[column] = _published(key, 1, "{:g}")
    if so_far:
        columns["missing"] = lambda arm: Cell(_by_state(arm.missing))
    if len({run.tags.get("device") for run in study.runs}) > 1:  # else it stands above the table
        columns["device"] = device
    cells = {name: [cell(arm) for arm in study.ranked] for name, cell in columns.items()}
    always = {"arm", "trial", "n"}
    always |= set() if so_far else {f"{words}, %" for words in TEST_ACCURACIES.values()}
    known = {name for name, column in cells.items() if any(cell.text not in ("", MISSING) for cell in column)}
    kept = {name: column for name, column in cells.items() if name in always | known}
    gone = [name for name in columns if name not in kept]
    notes = [f"No run knows: {'; '.join(gone)}."] if gone and study.runs and not so_far else []
    notes.append(f"Mean ± standard deviation over seeds{'' if so_far else ' [95 % interval]'}.")
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
        rows=tuple(zip(*kept.values(), strict=True)),
        note=" ".join(notes),
    )


def comparisons_table(study: Study, comparisons: Sequence[Comparison]) -> Table:
    """A row for each arm but the baseline."""
    base = study.baseline.name if study.baseline else ""
    words = {"equal": "practically equal", "open": "no difference shown"}
    tested = sum(each.p is not None for each in comparisons)
    chance = "new seeds and new images" if any(each.seeds for each in comparisons) else "new images"
    return Table(
        name=f"{study.name}-comparisons",
        caption=f"{study.title}: against {base} ({METRICS[study.metric]})",
        columns=(
            *("arm", "difference [95 %], points", "runs", "standard error: seeds, images"),
            *("p", "p, Holm", "verdict"),
        ),
        rows=tuple(
            (
                Cell(each.arm, number),
                difference(each.value, each.interval),
                Cell(f"{each.runs[0]}, {each.runs[1]}", each.runs[0]),
                _errors(each),
                _p(each.p, "not tested"),
                _p(each.p_corrected, "not tested"),
                Cell(words.get(each.verdict, each.verdict) if each.p is not None else "not tested"),
            )
            for number, each in enumerate(comparisons)
        ),
        note=f"Arm minus {base}. Intervals and p are for {chance}."
        + (f" Holm's correction is over the {tested} that were tested." if tested > 1 else "")
        + (
            f" Practically equal: within {points(study.margin)}, by two one-sided tests."
            if study.margin
            else ""
        ),
    )


def ranking_table(study: Study, findings: Findings) -> Table:
    """A row an arm: whether it may be the best, and what its accuracy costs."""
    goal = f"{100 * findings.target:.4g} %" if findings.target else ""
    cost = {f"epochs to {goal}": "epochs", f"minutes to {goal}": "seconds"} if goal else {}

    def row(place: int, arm: Arm) -> tuple[Cell, ...]:
        mean = arm.estimate(study.metric).mean
        reached = findings.reached.get(arm.name)
        some = f"{reached.runs} of {len(arm.runs)} runs" if reached and reached.runs < len(arm.runs) else ""
        known = [getattr(reached, what) for what in cost.values()]
        return (
            Cell(arm.name, place),
            _number(mean, 100, "{:.2f}"),
            Cell("yes" if arm.name in findings.best else "no"),
            _number(findings.chances.get(arm.name), 100, "{:.0f}"),
            *(
                replace(_number(value, 1 if what == "epochs" else 1 / 60, "{:.1f}"), detail=some)
                if value is not None
                else _none("not reached")
                for what, value in zip(cost.values(), known, strict=True)
            ),
            *([Cell("yes" if arm.name in findings.front else "no")] if findings.front else []),
        )

    return Table(
        name=f"{study.name}-ranking",
        caption=f"{study.title}: the best, and what it costs",
        columns=(
            *("arm", f"{METRICS[study.metric]}, %", "may be the best", "best in % of draws"),
            *cost,
            *(["none faster and better"] if findings.front else []),
        ),
        rows=tuple(row(n, arm) for n, arm in enumerate(study.ranked) if arm.name in findings.spreads),
        note="May be the best: no other arm shows it to be worse (95 %, one-sided, corrected over the "
        "others). Draws: means for new seeds and new images."
        + (
            f" To {goal}: the first epoch whose test accuracy is that high, mean over runs"
            f"{'' if study.target else '; the greatest whole per cent that every run reached'}."
            if goal
            else ""
        ),
    )


def spread_table(study: Study, findings: Findings) -> Table:
    """A row an arm: what its runs scatter by."""

    def row(place: int, arm: Arm) -> tuple[Cell, ...]:
        parts = findings.spreads[arm.name]
        low = "below what tosses alone give: luck" if parts.too_low else ""
        return (
            Cell(arm.name, place),
            Cell(str(len(arm.shares(study.metric)))),
            replace(_number(parts.measured, 100, "{:.2f}"), detail=low),
            _number(parts.flips, 100, "{:.2f}"),
            _number(parts.seeds, 100, "{:.2f}"),
            _number(parts.images, 100, "{:.2f}"),
        )

    return Table(
        name=f"{study.name}-spread",
        caption=f"{study.title}: what runs scatter by, standard deviations in points",
        columns=("arm", "runs", "of runs", "tosses of single images", "whole seeds", "mean, over new images"),
        rows=tuple(row(n, arm) for n, arm in enumerate(study.ranked) if arm.name in findings.spreads),
        note="Of runs: measured over seeds. Tosses: what it would be if each image were right or wrong by "
        "itself, as often as it is; no arm can scatter less for long. Whole seeds: what is left, seeds that "
        "are better or worse throughout.",
    )


def _errors(each: Comparison) -> Cell:
    if each.seeds is None or each.images is None:
        return _none("images alone")
    unpaired = "" if each.paired else "unpaired"
    return Cell(f"{100 * each.seeds:.2f}, {100 * each.images:.2f}", each.seeds, detail=unpaired)


def _accuracy(metric: str, *, intervals: bool) -> Callable[[Arm], Cell]:
    def cell(arm: Arm) -> Cell:
        estimate = arm.estimate(metric)
        if estimate.mean is None:
            return _none()
        shares = [(run.seed, share) for run in arm.runs if (share := run.share(metric)) is not None]
        spread = f" ± {100 * estimate.sd:.2f}" if estimate.sd is not None else ""
        span = estimate.interval if intervals else None
        details = [
            f"[{100 * span.low:.2f}, {100 * span.high:.2f}]" if span else "",
            "one run" if estimate.n == 1 else "",
            f"(n={estimate.n})" if 1 < estimate.n < len(arm.runs) else "",
        ]
        return Cell(
            f"{100 * estimate.mean:.2f}{spread}",
            estimate.mean,
            detail=" ".join(filter(None, details)),
            hint=", ".join(f"seed {seed}: {100 * share:.2f}" for seed, share in shares),
        )

    return cell


def _runs(arm: Arm) -> Cell:
    done, missing = len(arm.runs), len(arm.missing)
    return Cell(f"{done} of {done + missing}" if missing else str(done), done, hint="; ".join(arm.missing))


def _by_state(missing: Sequence[str]) -> str:
    """`failed: seed 3; waiting: seed 4, seed 5`, without the reasons."""
    seeds: dict[str, list[str]] = {}
    for text in missing:
        seed, state = text.split(": ")[:2]
        seeds.setdefault(state, []).append(seed)
    return "; ".join(f"{state}: {', '.join(named)}" for state, named in seeds.items())


def _mean(what: str, unit: float, form: str) -> Callable[[Arm], Cell]:
    return lambda arm: _number(arm.mean(what), unit, form)


def _published(key: str, unit: float, form: str) -> Callable[[Arm], Cell]:
    return lambda arm: _number(arm.reference.get(key), unit, form)


def compatible(arm: Arm, other_conditions: str) -> Cell:
    """Whether the published run could be one more seed of ours: it scatters as they do, and so is not
    asked to lie in the interval of their mean (Crawford and Howell 1998)."""
    value, ours = arm.reference.get(BEST), arm.shares(BEST)
    images = next((run.test_images for run in arm.runs if run.test_images), None)
    if value is None or not ours or (len(ours) == 1 and not images):
        return _none("")
    if other_conditions:
        return Cell("not comparable", hint=other_conditions)
    if len(ours) > 1:
        test, how = one_more_seed(value, ours, step=arm.step), "as one more seed of ours"
    else:
        n = images or 1
        test, how = (
            unpaired_shares(round(value * n), n, round(ours[0] * n), n),
            "one run against one",
        )
    where = "yes" if test.p >= LEVEL else "no, above" if test.value > 0 else "no, below"
    return Cell(where, hint=f"{how}: {p_value(test.p)}")


def _number(value: float | None, unit: float, form: str) -> Cell:
    return _none() if value is None else Cell(form.format(value * unit), value)


def device(arm: Arm) -> Cell:
    devices = dict.fromkeys(run.tags["device"] for run in arm.runs if run.tags.get("device"))
    return Cell(", ".join(devices)) if devices else _none()


def difference(value: float, interval: Interval | None) -> Cell:
    """`+0.25 [-0.87, +1.37]`, in points."""
    span = f"[{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]" if interval else ""
    return Cell(_minus(f"{100 * value:+.2f}"), value, detail=_minus(span))


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _p(p: float | None, none: str = MISSING) -> Cell:
    return _none(none) if p is None else Cell(p_value(p).removeprefix("p = ").removeprefix("p "), p)


def _none(word: str = MISSING) -> Cell:
    return Cell(word, "")
