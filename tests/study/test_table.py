"""Laws of a study's table, description, file of cells and figure."""

from __future__ import annotations

import csv
import io
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagenette.results import Status
from imagenette.study.figure import write_figure
from imagenette.study.queue import Row
from imagenette.study.table import LIMIT, Spread, arm_rows, csv_text, how_far, markdown

STATES = ["waiting", "running", "done", "pruned", "failed"]
OBJECTIVE = "selected/holdout_accuracy"
DECAYS = ("weight_decay=0.0", "weight_decay=0.0005", "weight_decay=0.01")


def cell(arm: str, seed: int, value: float | None = None, *, position: int = 0, **more: Any) -> Row:
    """A cell; with a value of the objective, a finished one."""
    finished: dict[str, Any] = {}
    if value is not None:
        metrics = {
            "selected/holdout_accuracy": value,
            "selected/test_accuracy": value - 0.01,
            "final/test_accuracy": value - 0.02,
            "best/test_accuracy": value + 0.01,
        }
        finished = {
            "state": Status("done"),
            "value": value,
            "metrics": metrics,
            "seconds": 120.0,
            "attempt": 1,
        }
    values = {"seed": seed, **dict(said.split("=") for said in arm.split())}
    facts = {"cell": f"{arm} seed={seed}", "arm": arm, "position": position, "values": values}
    return Row(**{**facts, **finished, **more})


def grid(arms: tuple[str, ...], seeds: int, **more: Any) -> list[Row]:
    rng = random.Random(0)
    places = [(arm, seed) for arm in arms for seed in range(1, seeds + 1)]
    return [
        cell(arm, seed, 0.9 + 0.03 * rng.random(), position=p, **more) for p, (arm, seed) in enumerate(places)
    ]


def trial(number: int, value: float | None = None, **more: Any) -> Row:
    drawn = {"lr": 0.0123456 * number, "batch_size": 16, "seed": 1}
    row = replace(cell("lr=0", 1, value), cell=f"trial {number}", arm=f"trial {number}", values=drawn)
    return replace(row, position=number - 1, **more)


def search(count: int) -> list[Row]:
    rng = random.Random(1)
    states = [rng.choice(STATES) for _ in range(count)]
    return [
        trial(n, 0.8 + 0.1 * rng.random()) if state == "done" else trial(n, state=state)
        for n, state in enumerate(states, start=1)
    ]


def described(rows: list[Row], arms: tuple[str, ...] = DECAYS, seeds: int = 3, **more: Any) -> str:
    usual: dict[str, Any] = {"objective": OBJECTIVE, "reads_test": False, "references": {}}
    return markdown("Weight decay", arms=arms, seeds=range(1, seeds + 1), rows=rows, **{**usual, **more})


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


@given(st.lists(st.floats(0, 1), max_size=6))
def test_spread_is_the_sample_mean_and_deviation(values: list[float]) -> None:
    spread = Spread.of([*values, None])
    assert spread.n == len(values)
    assert (spread.mean is None) == (not values)
    assert (spread.sd is None) == (len(values) < 2)
    if spread.mean is not None:
        assert min(values) - 1e-12 <= spread.mean <= max(values) + 1e-12
    if spread.sd is not None:
        assert spread.sd == pytest.approx(np.std(values, ddof=1), abs=1e-9)


def test_percent_says_how_many_runs() -> None:
    assert Spread.of([0.9221, 0.9241, 0.9261]).percent() == "92.41 ± 0.20 (n=3)"
    assert Spread.of([0.9241]).percent() == "92.41 (one run)"
    assert Spread.of([]).percent() == "missing"


@given(
    st.lists(st.sampled_from([*STATES, None]), min_size=6, max_size=6), st.permutations(range(6)), st.data()
)
def test_every_planned_cell_is_done_or_missing(
    states: list[str | None], order: list[int], data: st.DataObject
) -> None:
    arms = ("b=1", "a=1")
    rows = [
        cell(arm, seed, 0.9 if state == "done" else None, **({} if state == "done" else {"state": state}))
        for (arm, seed), state in zip([(a, s) for a in arms for s in (1, 2, 3)], states, strict=True)
        if state is not None
    ]
    table = arm_rows(arms, (1, 2, 3), {}, rows)
    assert [row.arm for row in table] == list(arms)
    assert all(row.done + len(row.missing) == row.planned == 3 for row in table)
    assert all(row.objective.n == row.done for row in table)
    assert arm_rows(arms, (1, 2, 3), {}, data.draw(st.permutations(rows))) == table


def test_missing_cells_say_why() -> None:
    rows = [
        cell("lr=1", 1, 0.9),
        cell("lr=1", 2, state="failed", reason="loss not finite\nat epoch 1\x1b[31m"),
        cell("lr=1", 3, state="running"),
    ]
    [arm] = arm_rows(["lr=1"], [1, 2, 3, 4], {"lr=1": {"best/test_accuracy": 0.9248}}, rows)
    assert arm.missing == (
        "seed=2: failed: loss not finite at epoch 1 [31m",
        "seed=3: running",
        "seed=4: waiting",
    )
    assert (arm.done, arm.planned, arm.reference) == (1, 4, 0.9248)


def test_time_of_a_reused_run_does_not_count() -> None:
    rows = [cell("lr=1", 1, 0.9, seconds=60.0), cell("lr=1", 2, 0.9, seconds=600.0, reused="run")]
    assert arm_rows(["lr=1"], [1, 2], {}, rows)[0].seconds == 60
    assert arm_rows(["lr=1"], [2], {}, rows)[0].seconds is None


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_a_search_ranks_its_finished_trials(values: list[float | None]) -> None:
    rows = [trial(n, v) if v is not None else trial(n, state="pruned") for n, v in enumerate(values, start=1)]
    table = arm_rows((), (1,), {}, rows)
    means = [row.objective.mean for row in table]
    assert means == sorted((v for v in values if v is not None), reverse=True)
    assert f"{len(means)} of {len(values)} trials done" in described(rows, arms=())


@given(st.lists(st.sampled_from(STATES), max_size=20))
def test_how_far_counts_every_cell_once(states: list[str]) -> None:
    said = how_far([cell("lr=1", s, state=state) for s, state in enumerate(states)])
    done, *others = said.split(", ")
    counted = [int(part.split()[0]) for part in [done, *others]]
    assert sum(counted) == len(states)
    assert done == f"{states.count('done')} of {len(states)} cells done"


def test_the_description_says_on_which_split_the_objective_is_measured() -> None:
    rows = grid(DECAYS, 3)
    honest = described(rows)
    assert "measured on the holdout" in honest
    assert "the test set chose, so" not in honest
    flattered = described(rows, objective="best/test_accuracy", reads_test=True)
    assert "**It is measured on the test set: the test set chose, so the numbers flatter.**" in flattered
    assert "holdout, images" not in flattered
    assert table_lines(flattered)[0].count("test, best epoch") == 1  # the objective is no second column


def test_the_description_shows_what_is_there_and_what_is_not() -> None:
    rows = grid(DECAYS, 3)
    rows[-1] = cell(DECAYS[2], 3, state="failed", attempt=2, reason="loss not finite | at `epoch` 1")
    rows[-2] = cell(DECAYS[2], 2, state="waiting")
    rows[0] = replace(rows[0], reused="abc")
    text = described(rows, references={DECAYS[1]: {"best/test_accuracy": 0.9248}})
    assert "\n**7 of 9 cells done, 1 waiting, 1 failed** (1 taken from identical runs" in text
    assert "reference: best epoch on test, one run" in table_lines(text)[0]
    assert "| 92.48 |" in table_lines(text)[3]
    assert "(n=3)" in table_lines(text)[2]
    assert "(one run)" in table_lines(text)[4]
    assert "waiting: seed=2; failed: seed=3" in table_lines(text)[4]
    assert f"- {DECAYS[2]} seed=3 (attempt 2): `loss not finite | at 'epoch' 1`" in text
    assert "signific" not in text


def test_without_a_holdout_the_selected_epoch_is_no_column_of_its_own() -> None:
    bare = [
        replace(row, value=row.metrics["final/test_accuracy"], metrics={**row.metrics})
        for row in grid(DECAYS, 2)
    ]
    for row in bare:
        del row.metrics["selected/holdout_accuracy"]
    text = described(bare, seeds=2, objective="final/test_accuracy", reads_test=True)
    assert "selected epoch" not in text


@pytest.mark.parametrize("arms", [0, 1, 40, 400])
def test_a_description_fits_where_mlflow_keeps_it(arms: int) -> None:
    names = tuple(f"weight_decay={i} batch_size={2 * i}" for i in range(arms))
    rows = grid(names, 3) + [
        cell(name, 4, state="failed", reason="x" * 900, position=10_000) for name in names[::2]
    ]
    text = described(rows, arms=names, seeds=4, importances={"lr": 0.6}, evaluator="fANOVA")
    assert len(text) <= LIMIT
    assert len({line.count("|") for line in table_lines(text)}) <= 1
    shown = len(table_lines(text)) - 2 if arms else 0
    assert shown == arms or f"… and {arms - shown} more" in text
    assert "(fANOVA, " in text


def test_importances_name_their_evaluator_and_their_limits() -> None:
    shares = {"seed": 0.2, "weight_decay": 0.8}
    text = described(grid(DECAYS, 3), importances=shares, evaluator="fANOVA")
    assert "(fANOVA, 3 arms): `weight_decay` 80%, `seed` 20%. What `seed` explains is noise." in text
    few = described(grid(DECAYS[:2], 3), arms=DECAYS[:2], importances=shares, evaluator="fANOVA")
    assert "mean nothing yet" in few
    assert "mean nothing yet" not in text
    assert "by knob" not in described(grid(DECAYS, 3), importances={}, evaluator="fANOVA")


def test_the_file_of_cells_reads_back_the_same() -> None:
    odd = 'out of memory, "2 GB"\nasked | for'
    rows = [*grid(DECAYS, 2), cell("lr=1", 1, state="failed", position=99, reason=odd, attempt=3), *search(9)]
    read = list(csv.DictReader(io.StringIO(csv_text(rows, objective=OBJECTIVE))))
    by_cell = {line["cell"]: line for line in read}
    assert len(read) == len(rows) == len(by_cell)
    for row in rows:
        line = by_cell[row.cell]
        assert (line["arm"], line["state"], line["seed"]) == (row.arm, row.word, str(row.values["seed"]))
        assert line["value"] == ("" if row.value is None else str(row.value))
        assert all(float(line[name]) == value for name, value in row.metrics.items())
        assert (line["reason"], line["attempt"]) == (row.reason or "", str(row.attempt))
    assert csv_text([], objective=OBJECTIVE).count("\n") == 1


@pytest.mark.parametrize(
    ("arms", "seeds", "objective"),
    [
        (DECAYS[:1], 1, OBJECTIVE),
        (DECAYS, 3, "best/test_accuracy"),
        (tuple(f"lr={i} batch_size={i}" for i in range(25)), 2, OBJECTIVE),
    ],
)
def test_every_study_has_a_figure(tmp_path: Path, arms: tuple[str, ...], seeds: int, objective: str) -> None:
    rows = [*grid(arms, seeds)[:-1], cell(arms[-1], seeds, state="failed")]
    path = tmp_path / "study.png"
    for stage in ([cell(arm, 1) for arm in arms], rows):  # before anything is done, and after
        references = {arms[0]: {"best/test_accuracy": 0.92}}
        write_figure(path, title="T" * 200, objective=objective, arms=arms, references=references, rows=stage)
        assert [file.name for file in tmp_path.iterdir()] == ["study.png"]
        width, height = Image.open(path).size
        assert 900 < width < 1100
        assert 450 < height < 1300


@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_search_has_a_figure_at_any_stage(tmp_path: Path, count: int) -> None:
    write_figure(
        tmp_path / "s.png", title="Search", objective=OBJECTIVE, arms=(), references={}, rows=search(count)
    )
    assert Image.open(tmp_path / "s.png").size == (990, 506)


def test_more_arms_make_a_higher_figure_not_a_wider_one(tmp_path: Path) -> None:
    sizes = []
    for count in (20, 40, 150, 2000):
        arms = tuple(f"lr={i}" for i in range(count))
        path = tmp_path / f"{count}.png"
        write_figure(path, title="", objective=OBJECTIVE, arms=arms, references={}, rows=grid(arms, 1))
        sizes.append(Image.open(path).size)
    assert len({width for width, _ in sizes}) == 1
    assert sizes[0][1] < sizes[1][1] < sizes[2][1] == sizes[3][1]  # there are limits


def test_table_and_show_load_nothing_heavy() -> None:
    heavy = "{'torch', 'mlflow', 'optuna', 'sqlalchemy', 'matplotlib'}"
    code = f"import sys, imagenette.study.show; print(sorted({heavy} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
