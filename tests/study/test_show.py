"""Laws of what a terminal shows of a study."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from imagenette.results import Status
from imagenette.study.queue import Row
from imagenette.study.show import duration, missing_line, plain_line, status_table, time_left, watching

NOW = 1_000_000.0
STATES = ["waiting", "running", "done", "pruned", "failed"]


def cell(number: int, state: str = "waiting", **more: Any) -> Row:
    arm = f"batch_size={number // 3}"
    facts: dict[str, Any] = {
        "values": {"batch_size": number // 3, "seed": number % 3},
        "state": Status(state),
    }
    if state == "done":
        facts |= {"value": 0.912, "seconds": 192.0, "progress": 1.0}
    if state == "running":
        facts |= {"started": NOW - 60, "host": "gpu-a"}
    if state == "failed":
        facts |= {"reason": "loss not finite at epoch 1"}
    facts |= {"attempt": int(state != "waiting"), **more}
    return Row(cell=f"{arm} seed={number % 3}", arm=arm, position=number, **facts)


def cells(**counts: int) -> list[Row]:
    states = [state for state, count in counts.items() for _ in range(count)]
    return [cell(number, state) for number, state in enumerate(states)]


some_cells = st.lists(
    st.tuples(st.sampled_from(STATES), st.integers(0, 50), st.floats(1, 1e5), st.booleans()), max_size=30
).map(
    lambda facts: [
        cell(
            number,
            state,
            progress=epochs / 50 if state == "running" else 0.0,
            seconds=seconds if state == "done" else None,
            started=NOW - seconds,
            reused="run" if reused and state == "done" else None,
        )
        for number, (state, epochs, seconds, reused) in enumerate(facts)
    ]
)


def shown(renderable: Any, width: int = 120) -> list[str]:
    """The lines on a screen so wide, without blanks at their ends."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return [line.rstrip() for line in text_of(console).splitlines()]


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# -- time left -----------------------------------------------------------------------------------------


@given(some_cells, st.floats(-1e4, 1e6))
def test_time_left_is_never_negative(rows: list[Row], later: float) -> None:
    left = time_left(rows, now=NOW + later)
    assert left is None or 0 <= left < float("inf")


@given(some_cells)
def test_time_left_is_zero_when_nothing_is_left_to_do(rows: list[Row]) -> None:
    left = time_left(rows, now=NOW)
    if not any(row.state in ("waiting", "running") for row in rows):
        assert left == 0
    if any(row.state == "waiting" for row in rows):
        assert left is None or left > 0


@given(st.integers(1, 8), st.integers(1, 6))
def test_twice_as_many_at_once_halve_it(at_once: int, rounds: int) -> None:
    few = cells(done=1, running=at_once, waiting=(2 * rounds - 1) * at_once)
    many = cells(done=1, running=2 * at_once, waiting=(2 * rounds - 2) * at_once)
    assert time_left(few, now=NOW) == pytest.approx(2 * (time_left(many, now=NOW) or 0))


@given(some_cells)
def test_one_more_cell_never_makes_it_shorter(rows: list[Row]) -> None:
    left = time_left(rows, now=NOW)
    more = time_left([*rows, cell(99)], now=NOW)
    assert left is None or more is None or more >= left


def test_time_left_is_what_the_median_cell_took() -> None:
    rows = [cell(n, "done", seconds=s) for n, s in enumerate((50.0, 100.0, 900.0))]
    assert time_left([*rows, cell(3)], now=NOW) == 100
    assert time_left([*rows, cell(3, "running", progress=0.75)], now=NOW) == 25
    assert time_left([*rows, cell(3, "running", progress=0.75), cell(4)], now=NOW) == 125
    reused = [cell(n, "done", seconds=1.0, reused="run") for n in range(5, 9)]
    assert time_left([*rows, *reused, cell(3)], now=NOW) == 100


def test_before_a_cell_is_done_the_running_ones_tell() -> None:
    assert time_left(cells(waiting=3), now=NOW) is None
    assert time_left(cells(running=1, waiting=3), now=NOW) is None
    quarter = cell(0, "running", progress=0.25)  # 60 s for a quarter
    assert time_left([quarter], now=NOW) == 180
    assert time_left([quarter, cell(1)], now=NOW) == 420


def test_durations_are_read_at_a_glance() -> None:
    said = [duration(s) for s in (0.0, 45.2, 89, 720, 5399, 12_240, 181_440)]
    assert said == ["0 s", "45 s", "89 s", "12 min", "90 min", "3.4 h", "2.1 days"]


# -- the status ----------------------------------------------------------------------------------------


@given(some_cells, st.integers(12, 40), st.sampled_from([40, 80, 120]))
def test_a_status_stays_within_the_screen(rows: list[Row], lines: int, width: int) -> None:
    said = shown(status_table("study", rows, now=NOW, workers_alive=2, lines=lines), width)
    assert len(said) <= lines
    assert all(len(line) <= width for line in said)


def test_hundreds_of_cells_stay_within_a_screen_and_are_all_counted() -> None:
    rows = cells(done=300, running=40, failed=30, waiting=130)
    said = shown(status_table("big", rows, now=NOW, workers_alive=40))
    assert len(said) <= 30
    assert said[0] == "big: 300 of 500 cells done, 40 running, 130 waiting, 30 failed"
    for state, count in (("running", 40), ("failed", 30), ("done", 100)):
        here = sum(line.startswith(state) for line in said)
        assert any(f"… and {count - here} more" in line for line in said)


def test_a_status_says_where_each_cell_is() -> None:
    rows = [*cells(done=4, running=1, failed=1), cell(6, "running", progress=0.5, attempt=2)]
    said = shown(status_table("study", rows, now=NOW, workers_alive=2))
    assert said[0] == "study: 4 of 7 cells done, 2 running, 1 failed"
    assert said[1] == "about 3 min left, 2 workers alive"
    assert [line.split() for line in said[2:4]] == [
        ["running", "batch_size=1", "seed=1", "1.0", "min", "0", "%", "gpu-a"],
        ["running", "batch_size=2", "seed=0", "1.0", "min", "50", "%", "attempt", "2,", "gpu-a"],
    ]
    assert said[4].split(maxsplit=3) == ["failed", "batch_size=1", "seed=2", "loss not finite at epoch 1"]
    assert said[5].split(maxsplit=2) == ["done", "batch_size=0", "3 of 3  91.20 ± 0.00 %"]
    assert said[6].split(maxsplit=2) == ["done", "batch_size=1", "1 of 3  91.20 %"]
    named = shown(status_table("study", rows, now=NOW, objective="final/test_accuracy"))
    assert named[-1].endswith("1 of 3  test 91.20 %")


def test_nobody_at_work_is_said() -> None:
    assert "no worker alive" in shown(status_table("s", cells(waiting=1), now=NOW, workers_alive=0))[1]
    assert len(shown(status_table("s", cells(waiting=1), now=NOW))) == 1  # nobody counted them
    assert len(shown(status_table("s", cells(failed=1), now=NOW, workers_alive=0))) == 2


def test_a_reason_is_shown_as_it_is_not_as_markup() -> None:
    rows = [cell(0, "failed", reason="[red]tensor[0]\x1b[2J of [/] none")]
    assert "[red]tensor[0] [2J of [/] none" in shown(status_table("s", rows, now=NOW))[1]


# -- lines ---------------------------------------------------------------------------------------------


def test_a_cell_that_ended_is_one_line() -> None:
    assert plain_line(cell(49, "done")) == "done  batch_size=16 seed=1  91.20 %  (3.2 min)"
    told = plain_line(cell(49, "done"), "selected/holdout_accuracy")
    assert told == "done  batch_size=16 seed=1  holdout 91.20 %  (3.2 min)"
    failed = cell(49, "failed", reason="loss\nnot finite", seconds=30.0)
    assert plain_line(failed) == "failed  batch_size=16 seed=1  loss not finite  (0.5 min)"
    assert plain_line(cell(49, "failed", reason=None)).endswith("no reason recorded")
    assert plain_line(cell(49, "done", seconds=None, reused="abc")).endswith("91.20 %  (taken from run abc)")
    drawn = replace(cell(6, "pruned"), cell="trial 7", values={"lr": 0.0123456, "flip": True, "seed": 1})
    assert plain_line(drawn) == "pruned  trial 7: lr=0.0123 flip=true"


def test_what_is_missing_is_named_and_how_to_go_on() -> None:
    rows = cells(done=16, running=1, failed=1)
    assert missing_line("weight-decay", rows) == (
        "weight-decay: 16 of 18 cells done; missing: "
        "batch_size=5 seed=2 (failed: loss not finite at epoch 1), batch_size=5 seed=1 (running); "
        "go on with: imagenette study weight-decay --retry-failed"
    )
    stopped = missing_line(
        "s-smoke", cells(done=1, pruned=2, waiting=7), command="imagenette study s --smoke"
    )
    assert stopped.startswith("s-smoke: 1 of 10 cells done, 2 pruned; missing: ")
    assert stopped.endswith(" and 4 more; go on with: imagenette study s --smoke")
    assert missing_line("s", cells(done=3, pruned=2)) == "s: 3 of 5 cells done, 2 pruned"


# -- watching ------------------------------------------------------------------------------------------


def log_of(*stages: list[Row]) -> list[str]:
    console = Console(file=io.StringIO(), width=40)
    with watching("study", console=console) as view:
        for rows in stages:
            view.update(rows)
    return text_of(console).splitlines()


def test_a_log_tells_each_end_once_and_nothing_else() -> None:
    before = [cell(0, "done"), cell(1), cell(2)]
    failed = [cell(0, "done"), cell(1, "failed"), cell(2, "running")]
    again = [cell(0, "done"), cell(1, "waiting", attempt=1), cell(2, "done")]
    after = [cell(0, "done"), cell(1, "done", attempt=2), cell(2, "done")]
    said = log_of(before, before, failed, failed, again, again, after, after)
    assert said == [plain_line(failed[1]), plain_line(again[2]), plain_line(after[1])]


def test_a_second_failure_between_two_looks_is_told() -> None:
    said = log_of([cell(1)], [cell(1, "failed", attempt=1)], [cell(1, "failed", attempt=2)])
    assert len(said) == 2


@given(st.lists(st.sampled_from(STATES), min_size=1, max_size=12))
def test_a_log_has_a_line_for_every_step_into_an_end(path: list[str]) -> None:
    attempt, stages = 0, []
    for before, state in zip(["waiting", *path], path, strict=False):
        attempt += before != state and state in ("running", "done", "pruned", "failed")
        stages.append([cell(0, state, attempt=attempt)])
    ends = ("done", "pruned", "failed")
    entered = sum(b != s and s in ends for b, s in itertools.pairwise(path))
    assert len(log_of(*stages)) == entered


def test_a_terminal_sees_the_last_state_when_the_view_closes() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None)
    with watching("study", console=console) as view:
        view.update(cells(waiting=2), workers_alive=1)
        view.update(cells(done=2))
    assert "study: 2 of 2 cells done" in text_of(console)
    assert "91.20" in text_of(console)
