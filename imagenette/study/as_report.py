"""A study under way as a report shows it: its rows become runs, and the report's own code does the rest.

Here stands what only a study under way has: how far it is, cells that failed, importances, the best trial so
far, MLflow's limit on a description. Pure functions of a plan and its rows; no server is asked. There are
neither intervals nor tests: while cells are missing, they would be taken for results.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagenette.drawing import BLUE, GREY, VERMILLION, drawing, dress, legend, new_figure, percent, write_png
from imagenette.report.assemble import assemble
from imagenette.report.figures import MOST_ARMS, accuracy
from imagenette.report.runs import TrackedRun
from imagenette.report.study import Study
from imagenette.report.table import plain
from imagenette.report.tables import arms_table
from imagenette.results import METRICS, SELECTED_HOLDOUT, Status, split_of
from imagenette.study.table import cell_name, how_far, is_done, reason, state_with_reason
from imagenette.tracking.study_plan import StudyPlan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from imagenette.study.queue import Row

LIMIT = 7500
"""Characters of a description below its links: MLflow cuts a tag at 8000, in the middle of a line."""
_FAILED = 8  # failed cells that a description names


def study_so_far(plan: StudyPlan, rows: Sequence[Row]) -> Study:
    """Finished cells as the runs of their arms, the others as missing, with what they wait for. In a search
    every finished trial is an arm; pruned and failed ones are left out (`how_far` counts them)."""
    shown = [row for row in rows if plan.arms or is_done(row)]
    runs = [_run(row, plan) for row in sorted(shown, key=lambda row: row.position)]
    return replace(assemble(plan.name, plan, runs), metric=plan.objective)


def _run(row: Row, plan: StudyPlan) -> TrackedRun:
    value = {} if row.value is None else {plan.objective: row.value}
    return TrackedRun(
        run_id=row.run_id or "",
        name=row.cell,
        arm=row.arm if plan.arms else cell_name(row),
        seed=row.values.get("seed"),
        state=Status.FINISHED if is_done(row) else state_with_reason(row),
        tags={"selection": "holdout" if SELECTED_HOLDOUT in row.metrics else "test"} if is_done(row) else {},
        claims={**row.metrics, **value},
        seconds=row.seconds if row.reused is None else None,  # else it is not the time of this machine
    )


# -- the description in MLflow -------------------------------------------------------------------------


def markdown(plan: StudyPlan, rows: Sequence[Row], shares: Mapping[str, float], *, evaluator: str) -> str:
    """The parent run's description, at most LIMIT characters: arms that do not fit are counted.

    shares: knob -> share of the objective's variation, as Optuna's `evaluator` sees it.
    """
    study = study_so_far(plan, rows)
    reused = sum(row.reused is not None for row in rows)
    taken = f" ({reused} taken from identical runs of other studies)" if reused else ""
    head = [f"# {plain(plan.title)}", "", f"**{_how_far(plan, rows)}**{taken}", "", _measured_on(plan), ""]
    if study.search and len(study.arms) > 1:
        flattered = f"the best of {len(study.arms)} by that number, which flatters it"
        head += [f"The first trial below is {flattered}.", ""]
    table = arms_table(study, so_far=True)
    columns, rule, *lines = table.markdown().splitlines()
    head += [columns, rule] if lines else []
    tail = ["", plain(table.note)] if lines else []
    tail += [*_failures(rows), *_importances(shares, evaluator, sum(bool(arm.runs) for arm in study.arms))]
    room = LIMIT - sum(len(line) + 1 for line in [*head, *tail]) - 80
    lengths = itertools.accumulate(len(line) + 1 for line in lines)
    fitting = sum(length <= room for length in lengths)
    cut = [f"\n… and {len(lines) - fitting} more: the table of every cell has them."] * (fitting < len(lines))
    return "\n".join([*head, *lines[:fitting], *cut, *tail])[:LIMIT].rstrip() + "\n"


def _how_far(plan: StudyPlan, rows: Sequence[Row]) -> str:
    return how_far(rows, "cells" if plan.arms else "trials")


def _measured_on(plan: StudyPlan) -> str:
    objective = f"Objective: `{plan.objective}` ({METRICS.get(plan.objective, plan.objective)}), maximized"
    if split_of(plan.objective) == "test":
        return f"{objective}. **It is measured on the test set: the test set chose, so the numbers flatter.**"
    return (
        f"{objective}; measured on the holdout, images that were kept out of training. The test set chose "
        "nothing but the epoch in the column of its best epoch, which flatters."
    )


def _failures(rows: Sequence[Row]) -> list[str]:
    failed = [row for row in rows if row.state == Status.FAILED]
    named = [
        f"- {row.cell} (attempt {row.attempt}): `{reason(row).replace('`', chr(39))}`"
        for row in failed[:_FAILED]
    ]
    more = [f"- … and {len(failed) - _FAILED} more"] * (len(failed) > _FAILED)
    return ["", "**Failed**", "", *named, *more] if failed else []


def _importances(shares: Mapping[str, float], evaluator: str, arms: int) -> list[str]:
    if not shares:
        return []
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    listed = ", ".join(f"`{knob}` {share:.0%}" for knob, share in ranked)
    noise = " What `seed` explains is noise." * ("seed" in shares)
    few = " **Fewer than three arms: these shares mean nothing yet.**" * (arms < 3)
    return [
        "",
        f"Share of the objective's variation by knob ({evaluator}, {arms} arms): {listed}.{noise}{few}",
    ]


# -- the figure ----------------------------------------------------------------------------------------


def write_figure(path: Path, plan: StudyPlan, rows: Sequence[Row]) -> None:
    """PNG, whole whenever it is there: the report's figure of accuracies; for a search the objective over
    trials, with the best so far."""
    with drawing():
        if not any(is_done(row) and row.value is not None for row in rows):
            figure = new_figure(9, 4.6)
            axes = figure.subplots()
            axes.text(0.5, 0.5, "no finished cell yet", transform=axes.transAxes, ha="center", color=GREY)
            axes.yaxis.set_ticks([])
            dress(axes)
        elif plan.arms:
            figure = _draw_arms(plan, rows)
        else:
            figure = _draw_search(plan, rows)
        title = "\n".join(textwrap.wrap(plan.title, 80))
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        words = f"{_how_far(plan, rows)}{figure.axes[0].get_title(loc='left')}"
        figure.axes[0].set_title(words, loc="left", fontsize=9, color=GREY)
    write_png(figure, path)


def _draw_arms(plan: StudyPlan, rows: Sequence[Row]) -> Figure:
    """The arms with the highest means, in the study's order."""
    study = study_so_far(plan, rows)
    means = {arm.name: arm.estimate(study.metric).mean for arm in study.arms}
    ranked = sorted(study.arms, key=lambda arm: means[arm.name] or 0.0, reverse=True)
    best = {arm.name for arm in ranked[:MOST_ARMS]}
    drawn = accuracy(replace(study, arms=tuple(a for a in study.arms if a.name in best)), so_far=True)
    assert drawn is not None
    drawn.figure.set_size_inches(9, drawn.figure.get_figheight() + 0.7)
    cut = f"; the best {MOST_ARMS} of {len(study.arms)} arms" * (len(study.arms) > MOST_ARMS)
    drawn.figure.axes[0].set_title(f"; a mark a mean, a dot a run{cut}", loc="left")
    return drawn.figure


def _draw_search(plan: StudyPlan, rows: Sequence[Row]) -> Figure:
    figure = new_figure(9, 4.6)
    axes = figure.subplots()
    done = {row.position + 1: row.value for row in rows if is_done(row) and row.value is not None}
    best = list(itertools.accumulate(done.values(), max))
    last = max(row.position + 1 for row in rows if row.ended)
    axes.step([*done, last], [*best, best[-1]], where="post", color=VERMILLION, label="best so far")
    axes.plot(list(done), list(done.values()), "o", color=BLUE, alpha=0.75, label="finished trial")
    pruned = [row.position + 1 for row in rows if row.state == Status.PRUNED]
    if pruned:  # what an early epoch gave is not the objective's value: they stand on the axis
        foot, across = [0.02] * len(pruned), axes.get_xaxis_transform()
        axes.plot(pruned, foot, "x", color=GREY, transform=across, label="pruned (no value)")
    axes.set_xlabel("trial")
    axes.set_ylabel(f"{METRICS.get(plan.objective, plan.objective)}, %")
    axes.set_xlim(0, max(row.position for row in rows) + 2)
    percent(axes.yaxis)
    dress(axes)
    legend(figure, loc="outside lower left", ncols=3)
    return figure
