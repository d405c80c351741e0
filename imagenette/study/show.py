"""What a terminal shows of a study: how far it is, what runs, what failed, what is left. Knows rows; knows no
database and no MLflow."""

from __future__ import annotations

import heapq
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from imagenette.results import split_of
from imagenette.study.table import cell_name, how_far, is_done, reason, state_with_reason

if TYPE_CHECKING:
    from imagenette.study.queue import Row

Line = list[str | Text]
"""Cells of one line of a table, the state first."""
STYLES = {"done": "green", "running": "cyan", "failed": "bold red", "pruned": "yellow", "waiting": "dim"}


def status_table(
    name: str,
    rows: Sequence[Row],
    *,
    now: float,
    objective: str | None = None,
    workers_alive: int | None = None,
    lines: int = 30,
) -> Group:
    """Counts and time left, then the running cells, the failed ones with their reasons, the arms with the
    mean of their objective; at most `lines` (from 12 on) lines however long the study is.

    now: unix seconds. objective: the metric behind the percentages. workers_alive: on this machine; None
    where nobody counted them.
    """
    running = [_running(row, now) for row in rows if row.state == "running"]
    failed: list[Line] = [["failed", cell_name(row), reason(row)] for row in rows if row.state == "failed"]
    parts: list[RenderableType] = _header(name, rows, now=now, workers_alive=workers_alive)
    room = lines - len(parts)
    for state, cells, most in (("running", running, room // 2), ("failed", failed, room // 4)):
        if cells:
            shown, more = _cut(cells, most)
            parts += [_grid(state, shown), *more]
            room -= len(shown) + len(more)
    arms = _arms(rows, objective)
    if len(arms) > room:
        arms.sort(key=lambda arm: -arm[0])
    shown, more = _cut([cells for _, cells in arms], room, "more arms, none of them better")
    if shown:
        parts += [_grid("done", shown), *more]
    return Group(*parts)


def _header(name: str, rows: Sequence[Row], *, now: float, workers_alive: int | None) -> list[RenderableType]:
    left = time_left(rows, now=now)
    unfinished = any(row.state in ("waiting", "running") for row in rows)
    words = [f"about {duration(left)} left"] if left else []
    if workers_alive is not None and (unfinished or workers_alive):
        words.append(f"{workers_alive or 'no'} worker{'s' * (workers_alive > 1)} alive")
    first = Text.assemble((name, "bold"), f": {how_far(rows)}", no_wrap=True, overflow="ellipsis")
    return [first, *[Text(", ".join(words), style="red" if workers_alive == 0 else "dim")] * bool(words)]


def _running(row: Row, now: float) -> Line:
    elapsed = max(now - row.started, 0) if row.started is not None else 0
    right = [
        Text(f"{elapsed / 60:.1f} min", justify="right"),
        Text(f"{100 * row.progress:.0f} %", justify="right"),
    ]
    again = f"attempt {row.attempt}" if row.attempt > 1 else ""
    return ["running", cell_name(row), *right, ", ".join(filter(None, [again, row.host]))]


def _arms(rows: Sequence[Row], objective: str | None) -> list[tuple[float, Line]]:
    """(mean of the objective, cells of the line) of every arm with a finished cell, in the study's order."""
    arms: dict[str, list[Row]] = {}
    for row in rows:
        arms.setdefault(row.arm, []).append(row)
    found: list[tuple[float, Line]] = []
    for arm, cells in arms.items():
        done = [row for row in cells if is_done(row)]
        values = [row.value for row in done if row.value is not None]
        if values:
            name = cell_name(done[0]) if arm == done[0].cell else arm
            mean = statistics.fmean(values)
            spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
            count = f"{len(done)} of {len(cells)}"
            found.append((mean, ["done", name, count, _percent(mean, spread, objective)]))
    return found


def _percent(value: float, spread: str = "", objective: str | None = None) -> str:
    """`holdout 63.57 %`: on which images, as far as that is known."""
    images = f"{split_of(objective)} " if objective else ""
    return f"{images}{100 * value:.2f}{spread} %"


def _cut(items: list[Line], most: int, rest: str = "more") -> tuple[list[Line], list[RenderableType]]:
    """What fits into `most` lines, the last of them counting the rest."""
    if len(items) <= most:
        return items, []
    return items[: most - 1], [Text(f"         … and {len(items) - most + 1} {rest}", style="dim")]


def _grid(state: str, lines: list[Line]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=len("running"))
    for _ in lines[0][1:-1]:
        grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column()  # gives way first on a narrow screen
    for cells in lines:
        texts = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        texts[0].stylize(STYLES[state])
        texts[-1].no_wrap, texts[-1].overflow = True, "ellipsis"
        grid.add_row(*texts)
    return grid


def time_left(rows: Sequence[Row], *, now: float) -> float | None:
    """Seconds until no cell waits or runs, if as many go on running at once as run now and each takes as long
    as the median of the cells trained so far (before there is one: as the running ones seem to take). Zero
    when nothing is left, None while nothing is known. Where trials are pruned it is rather too long.

    now: unix seconds.
    """
    running = [row for row in rows if row.state == "running"]
    waiting = sum(row.state == "waiting" for row in rows)
    if not running and not waiting:
        return 0.0
    trained = [row.seconds for row in rows if is_done(row) and row.reused is None and row.seconds]
    guessed = [
        max(now - row.started, 0) / row.progress
        for row in running
        if row.started is not None and row.progress > 0
    ]
    if not trained and not guessed:
        return None
    each = statistics.median(trained or guessed)
    free = [each * (1 - min(row.progress, 1)) for row in running] or [0.0]  # when each worker is free again
    heapq.heapify(free)
    for _ in range(waiting):
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for size, unit, digits in ((86400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def plain_line(row: Row, objective: str | None = None) -> str:
    """A cell that ended, for a log: `done  batch_size=16 seed=1  holdout 91.20 %  (3.2 min)`."""
    parts = [row.word, cell_name(row)]
    if row.state == "failed":
        parts.append(reason(row))
    elif row.value is not None:
        parts.append(_percent(row.value, objective=objective))
    if row.reused is not None:
        parts.append(f"(taken from run {row.reused})")
    elif row.seconds is not None:
        parts.append(f"({row.seconds / 60:.1f} min)")
    return "  ".join(parts)


def missing_line(name: str, rows: Sequence[Row], *, command: str | None = None) -> str:
    """The last word on a study: how far it is, what is missing and why, and the command that goes on.

    command: what started the study; None: `imagenette study NAME`.
    """
    rank = {"failed": 0, "running": 1, "waiting": 2}
    missing = sorted((row for row in rows if row.state in rank), key=lambda r: (rank[r.state], r.position))
    if not missing:
        return f"{name}: {how_far(rows)}"
    done = sum(map(is_done, rows))
    pruned = sum(row.state == "pruned" for row in rows)
    named = [f"{cell_name(row)} ({state_with_reason(row, 100)})" for row in missing[:3]]
    more = f" and {len(missing) - 3} more" * (len(missing) > 3)
    retry = " --retry-failed" * (missing[0].state == "failed")
    return (
        f"{name}: {done} of {len(rows)} cells done{f', {pruned} pruned' * (pruned > 0)}; "
        f"missing: {', '.join(named)}{more}; go on with: {command or f'imagenette study {name}'}{retry}"
    )


class View(Protocol):
    """Shows a study while it runs."""

    def update(self, rows: Sequence[Row], *, workers_alive: int | None = None) -> None:
        """The rows as they stand now. The first ones are where the study starts from: call it before the
        workers start."""


@contextmanager
def watching(name: str, *, objective: str | None = None, console: Console | None = None) -> Iterator[View]:
    """On a terminal a table that refreshes in place; elsewhere one line for each cell that ends, once.

    objective: the metric behind the percentages. console: None is the standard error stream.
    """
    if console is None:  # FORCE_COLOR makes a log file look like a terminal: nothing may move in it
        console = Console(stderr=True, force_interactive=None if sys.stderr.isatty() else False)
    if not console.is_interactive:
        yield _Log(console, objective)
        return
    screen = _Screen(name, console, objective)
    with Live(get_renderable=screen.render, console=console, refresh_per_second=2):
        yield screen


class _Screen:
    def __init__(self, name: str, console: Console, objective: str | None) -> None:
        self._name, self._console, self._objective = name, console, objective
        self._rows: Sequence[Row] | None = None
        self._workers: int | None = None

    def update(self, rows: Sequence[Row], *, workers_alive: int | None = None) -> None:
        self._rows, self._workers = rows, workers_alive

    def render(self) -> RenderableType:
        if self._rows is None:
            return Text(self._name, style="bold")
        lines = min(30, max(self._console.height - 1, 12))
        return status_table(
            self._name,
            self._rows,
            now=time.time(),
            objective=self._objective,
            workers_alive=self._workers,
            lines=lines,
        )


class _Log:
    def __init__(self, console: Console, objective: str | None) -> None:
        self._console, self._objective = console, objective
        self._ends: dict[str, tuple[str, int]] | None = None  # cell -> state and attempt of its end

    def update(self, rows: Sequence[Row], *, workers_alive: int | None = None) -> None:
        known = self._ends
        self._ends = {row.cell: (row.state, row.attempt) for row in rows if row.ended}
        for row in rows:
            if row.ended and known is not None and known.get(row.cell) != self._ends[row.cell]:
                self._console.print(
                    plain_line(row, self._objective), markup=False, highlight=False, soft_wrap=True
                )
