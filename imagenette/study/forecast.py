"""What a study will take, and what it can find: `imagenette study NAME --plan`. Numbers from a definition,
from finished runs and from the study's own rows. Trains nothing, writes nothing, and needs neither torch nor
a server that answers."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from imagenette.config import OPERATIONAL, Config
from imagenette.errors import InputError, RunError
from imagenette.stats import Scores, Spread, expected, smallest_difference
from imagenette.study.checks import check_same
from imagenette.study.definition import Definition
from imagenette.study.queue import Row
from imagenette.study.show import duration
from imagenette.study.storage import find_queue, in_one_line, open_storage
from imagenette.tracking.finished import FinishedRun, finished_runs

TYPICAL = (0.003, 0.006)
"""What seeds scatter by (sd of accuracies): the two cases of docs/report.md."""
IMAGES, OF_IMAGES = 3925, 0.0015
"""Imagenette's test images, and the standard error of a difference over new ones (docs/report.md)."""
_MORE = 2  # seeds an arm that are tried beside those planned
_NOT_THE_ARM = {*OPERATIONAL, "seed", "epochs", "limit", "data", "holdout"}


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Before the first training, or between two."""

    planned: int
    """Cells; of a search trials."""
    done: int
    """Of them in the study's database."""
    reused: int
    """Of the others those that a finished run of the same config stands in for."""
    seconds: float
    """What the others take, those that something is known of, by so many workers."""
    known: int
    """How many those are."""
    like: tuple[FinishedRun, ...]
    """The runs that tell."""
    spread: float | None
    """sd over seeds of this study's own finished runs; None where no arm has two."""
    spread_runs: int
    images: int | None
    """Test images; None where no run on this data tells."""

    @property
    def left(self) -> int:
        return self.planned - self.done - self.reused


def forecast(
    definition: Definition, runs: Sequence[FinishedRun], rows: Sequence[Row], *, workers: int = 1
) -> Forecast:
    """runs: finished ones, the oldest first. rows: the study's, where its database knows it."""
    done = {row.cell for row in rows if row.state.complete}
    cells = {cell.config.digest(): cell for cell in definition.cells}
    same: dict[str, FinishedRun] = {}
    for run in runs:
        if (digest := run.config.digest()) in cells:
            same.setdefault(digest, run)
    reused = {cells[digest].name for digest in same} - done
    left = [cell.config for cell in definition.cells if cell.name not in done | reused]
    planned = len(definition.cells)
    points = definition.configs()
    if definition.search:
        planned = definition.search.trials
        left = [points[number % len(points)] for number in range(planned - len(done))]
    full = {run.config.data: run.train_images for run in runs if run.train_images}
    told = [(like, _seconds(config, like, full)) for config in left if (like := _like(config, runs))]
    times = [seconds for _, seconds in told]
    arms: dict[str, list[float]] = {}
    for digest, run in same.items():
        arms.setdefault(cells[digest].arm, []).append(run.accuracy)
    images = next((r.test_images for r in runs if r.test_images and r.config.data == points[0].data), None)
    spread = Spread.of([Scores(accuracies, images) for accuracies in arms.values()])
    return Forecast(
        planned=planned,
        done=len(done),
        reused=len(reused),
        seconds=max(sum(times) / workers, max(times, default=0.0)),
        known=len(times),
        like=tuple({id(run): run for like, _ in told for run in like}.values()),
        spread=spread.variance**0.5 if spread.freedom else None,
        spread_runs=sum(len(each) for each in arms.values() if len(each) > 1),
        images=images,
    )


def _like(config: Config, runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs that cost as much an image, all on the device of the newest: those of the very same arm, else
    those of the same network at the same size and precision."""

    def cost(one: Config) -> tuple[object, ...]:
        return one.network, one.size, one.start_size, one.precision

    alike = [run for run in runs if cost(run.config) == cost(config)]
    arm = config.model_dump(exclude=_NOT_THE_ARM)
    alike = [run for run in alike if run.config.model_dump(exclude=_NOT_THE_ARM) == arm] or alike
    return [run for run in alike if run.device == alike[-1].device]


def _seconds(config: Config, like: Sequence[FinishedRun], full: dict[str, int]) -> float:
    """Of one training, by the median of what those runs took an epoch and image. full: data -> training
    images; where they are not known, they are taken to be as many as the run's."""

    def images(one: Config, known: int) -> float:
        return min(one.limit or known, known) * (1 - one.holdout)

    return statistics.median(
        run.seconds
        / (run.config.epochs * images(run.config, run.train_images or 1))
        * (config.epochs * images(config, full.get(config.data, run.train_images or 1)))
        for run in like
    )


def smallest(definition: Definition, *, more: int, spread: float, images: int | None) -> float | None:
    """The smallest true difference from the baseline that four of five such studies find, a share, with so
    many more seeds an arm; None where every arm is a single run."""
    runs, arms = len(definition.seeds) + more, len(definition.arms)
    with suppress(ValueError):
        precision = expected(
            runs=runs,
            baseline_runs=max(runs, len(definition.baseline_seeds)),
            arms=arms,
            variance=spread**2,
            images=OF_IMAGES**2 * IMAGES / (images or IMAGES),
        )
        return smallest_difference(precision, comparisons=arms - 1)
    return None


# -- in a terminal -------------------------------------------------------------------------------------


def show_forecast(
    definition: Definition, *, storage: str, tracking_uri: str | None, experiment: str | None, workers: int
) -> None:
    """Print it. InputError where the database holds this study with other cells."""
    rows: list[Row] = []
    runs: list[FinishedRun] = []
    unknown: list[str] = []
    try:
        with suppress(InputError), in_one_line():  # no database, or it has no such study
            rows = find_queue(open_storage(storage, create=False), definition.name).rows()
    except RunError as error:
        unknown.append(f"what is done already: {error}")
    check_same(definition, rows)
    try:
        runs = finished_runs(tracking_uri, experiment)
    except RunError as error:
        unknown.append(f"what finished runs took: {error}")
    found = forecast(definition, runs, rows, workers=workers)
    Console(highlight=False, markup=False).print(as_text(definition, found, workers=workers, unknown=unknown))


def as_text(
    definition: Definition, found: Forecast, *, workers: int = 1, unknown: Sequence[str] = ()
) -> Group:
    """Cells, time, and the smallest differences. unknown: what could not be asked for, and why."""
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_row("trials" if definition.search else "cells", _cells(definition, found))
    facts.add_row("time", _time(found, workers, pruned=bool(definition.search)))
    for what in unknown:
        facts.add_row("unknown", what)
    parts: list[RenderableType] = [
        Text.assemble((definition.name, "bold"), f": {definition.title}"),
        facts,
    ]
    if len(definition.arms) > 1:
        on = f"{found.images or IMAGES:,} test images"
        facts.add_row(
            "finds", f"in four of five such studies, on {on}, true differences from the baseline of"
        )
        parts += ["", _differences(definition, found)]
    return Group(*parts)


def _cells(definition: Definition, found: Forecast) -> str:
    seeds, extra = len(definition.seeds), len(set(definition.baseline_seeds) - set(definition.seeds))
    arms = len(definition.arms)
    words = f"{found.planned}"
    if not definition.search:
        words += f": {_count(arms, 'arm')} x {_count(seeds, 'seed')}"
        words += f", and {extra} more of the baseline {definition.baseline}" if extra else ""
    taken = f"{found.reused} taken from finished runs of the same config" if found.reused else ""
    past = ", ".join(filter(None, [f"{found.done} done" if found.done else "", taken]))
    return f"{words}; {past}" if past else words


def _time(found: Forecast, workers: int, *, pruned: bool) -> str:
    if not found.left:
        return "nothing is left to train"
    if not found.known:
        return "no finished run of such a network, at this size and precision, tells"
    kinds = Counter((run.config.network, run.config.size, run.device) for run in found.like)
    told = [
        f"{_count(count, 'run')} of {net} at {size} px on {dev}" for (net, size, dev), count in kinds.items()
    ]
    like = ", ".join(told[:3]) + f" and {len(told) - 3} more kinds" * (len(told) > 3)
    least = "at most " * pruned + "about "
    rest = found.left - found.known
    unknown = f"; no finished run tells of the other {rest}" if rest else ""
    who = _count(workers, "worker")
    return f"{least}{duration(found.seconds)} for {found.known} to train, {who}, by {like}{unknown}"


def _differences(definition: Definition, found: Forecast) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    table.add_column("seeds (baseline)", no_wrap=True)
    own = [] if found.spread is None else [found.spread]
    heads = [f"by {100 * spread:.1f}" for spread in (*TYPICAL, *own)]
    heads[-1] += f", as its {found.spread_runs} runs do" * len(own)
    for place, head in enumerate(heads):
        table.add_column("if seeds scatter " * (not place) + head, justify="right")
    for more in range(_MORE + 1):
        seeds = len(definition.seeds) + more
        sizes = [
            smallest(definition, more=more, spread=each, images=found.images) for each in (*TYPICAL, *own)
        ]
        cells = ["single runs do not tell" if size is None else f"{100 * size:.1f} points" for size in sizes]
        planned = ", as planned" * (not more)
        table.add_row(f"{seeds} ({max(seeds, len(definition.baseline_seeds))}){planned}", *cells)
    return table


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
