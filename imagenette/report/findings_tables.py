"""Tables of what a study tells beside the pairs: the best and its cost, what runs scatter by."""

from __future__ import annotations

from dataclasses import replace

from imagenette.report.findings import Findings
from imagenette.report.study import Arm, Study
from imagenette.report.table import Cell, Table, absent, number_cell
from imagenette.results import METRICS


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
            number_cell(mean, 100, "{:.2f}"),
            Cell("yes" if arm.name in findings.best else "no"),
            number_cell(findings.chances.get(arm.name), 100, "{:.0f}"),
            *(
                replace(number_cell(value, 1 if what == "epochs" else 1 / 60, "{:.1f}"), detail=some)
                if value is not None
                else absent("not reached")
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
            replace(number_cell(parts.measured, 100, "{:.2f}"), detail=low),
            number_cell(parts.flips, 100, "{:.2f}"),
            number_cell(parts.seeds, 100, "{:.2f}"),
            number_cell(parts.images, 100, "{:.2f}"),
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
