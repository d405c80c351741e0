"""A study's tables for reading. Pure functions of the study; what is missing is shown as missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from imagenette.report.compare import Comparison
from imagenette.report.conclusions import p_value, points
from imagenette.report.findings import Findings
from imagenette.report.findings_tables import ranking_table, spread_table
from imagenette.report.study import Arm, Study
from imagenette.report.table import MISSING, Cell, Table, absent, number_cell
from imagenette.results import BEST, METRICS, SELECTED, TEST_ACCURACIES
from imagenette.stats import LEVEL, one_more_seed, unpaired_shares

if TYPE_CHECKING:
    from imagenette.stats import Interval


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
                Cell(each.words),
            )
            for number, each in enumerate(comparisons)
        ),
        note=f"Arm minus {base}. Intervals and p are for {chance}."
        + (f" Holm's correction is over the {tested} that were tested." if tested > 1 else "")
        + (
            f" Practically equal: within {points(study.margin, exact=True)}, by two one-sided tests."
            if study.margin
            else ""
        ),
    )


def _errors(each: Comparison) -> Cell:
    if each.seeds is None or each.images is None:
        return absent("images alone")
    unpaired = "" if each.paired else "unpaired"
    return Cell(f"{100 * each.seeds:.2f}, {100 * each.images:.2f}", each.seeds, detail=unpaired)


def _accuracy(metric: str, *, intervals: bool) -> Callable[[Arm], Cell]:
    def cell(arm: Arm) -> Cell:
        estimate = arm.estimate(metric)
        if estimate.mean is None:
            return absent()
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
    return lambda arm: number_cell(arm.mean(what), unit, form)


def _published(key: str, unit: float, form: str) -> Callable[[Arm], Cell]:
    return lambda arm: number_cell(arm.reference.get(key), unit, form)


def compatible(arm: Arm, other_conditions: str) -> Cell:
    """Whether the published run could be one more seed of ours: it scatters as they do, and so is not
    asked to lie in the interval of their mean (Crawford and Howell 1998)."""
    value, ours = arm.reference.get(BEST), arm.shares(BEST)
    images = next((run.test_images for run in arm.runs if run.test_images), None)
    if value is None or not ours or (len(ours) == 1 and not images):
        return absent("")
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


def device(arm: Arm) -> Cell:
    devices = dict.fromkeys(run.tags["device"] for run in arm.runs if run.tags.get("device"))
    return Cell(", ".join(devices)) if devices else absent()


def difference(value: float, interval: Interval | None) -> Cell:
    """`+0.25 [-0.87, +1.37]`, in points."""
    span = f"[{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]" if interval else ""
    return Cell(_minus(f"{100 * value:+.2f}"), value, detail=_minus(span))


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _p(p: float | None, none: str = MISSING) -> Cell:
    return absent(none) if p is None else Cell(p_value(p).removeprefix("p = ").removeprefix("p "), p)


Maker = Callable[[Study, Sequence[Comparison], Findings], Table | None]
TABLES: dict[str, Maker] = {
    "arms": lambda study, _, __: arms_table(study) if study.arms else None,
    "comparisons": lambda study, found, _: comparisons_table(study, found) if found else None,
    "ranking": lambda study, _, more: ranking_table(study, more) if more.spreads else None,
    "spread": lambda study, _, more: spread_table(study, more) if more.spreads else None,
}
"""Those of a report, in its order, under what `Table.name` has after the study's, which is also their files'
name. None: this study has nothing to show there."""
