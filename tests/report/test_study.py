"""Which runs count, in which arm, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imagenette.report.assemble import assemble
from imagenette.report.conclusions import conclusions
from imagenette.report.runs import TrackedRun
from imagenette.report.study import published
from imagenette.report.tables import arms_table
from imagenette.results import BEST, FINAL, SELECTED
from imagenette.study.definition import load, shipped
from imagenette.tracking.study_plan import StudyPlan
from tests.report.simulated import run

RIGHT = np.arange(100) >= 10


def plan(**changed: object) -> StudyPlan:
    known = {
        "name": "s",
        "title": "S",
        "objective": "selected/holdout_accuracy",
        "seeds": (1,),
        "baseline": "lr=1",
    }
    return StudyPlan.model_validate(known | {"arms": {"lr=1": {"lr": 1}, "lr=2": {"lr": 2}}} | changed)


def of(arm: str, seed: int | None = 1, **changed: object) -> TrackedRun:
    return replace(run(RIGHT, arm=arm, seed=seed), **changed)  # type: ignore[arg-type]


def test_arms_stand_in_the_planned_order_with_what_is_missing():
    study = assemble("s", plan(seeds=(1, 2)), [of("lr=2"), of("lr=1", 2), of("lr=1", 1, state="failed: no")])
    assert [arm.name for arm in study.arms] == ["lr=1", "lr=2"]
    assert [arm.missing for arm in study.arms] == [("seed 1: failed: no",), ("seed 2: no run",)]
    assert study.planned == 4
    assert study.baseline is study.arms[0]


def test_seeds_that_nobody_planned_count_and_are_named():
    study = assemble("s", plan(), [of("lr=1"), of("lr=2"), of("lr=2", 7), of("lr=2", 8)])
    assert [len(arm.runs) for arm in study.arms] == [1, 3]
    assert any("lr=2 has runs of seeds that are not planned, which count: 7, 8." in p for p in study.problems)


def test_each_arm_is_held_against_its_own_seeds():
    planned = plan(seeds=(1, 2), baseline_seeds=(1, 2, 3, 4))
    study = assemble("s", planned, [of(arm, seed) for arm in ("lr=1", "lr=2") for seed in (1, 2, 3)])
    assert [arm.missing for arm in study.arms] == [("seed 4: no run",), ()]
    assert study.planned == 7  # six were planned, and one came beside them
    (said,) = (problem for problem in study.problems if "not planned" in problem)
    assert said.startswith("lr=2 has runs of seeds that are not planned, which count: 3.")


def test_without_a_plan_arms_and_their_knobs_come_from_the_runs():
    study = assemble("s", None, [of("depth=34"), of("depth=18"), of("depth=18", 2)])
    assert [(arm.name, dict(arm.values)) for arm in study.arms] == [
        ("depth=34", {"depth": 34}),
        ("depth=18", {"depth": 18}),
    ]
    assert isinstance(study.arms[0].values["depth"], int)
    assert study.baseline is study.arms[0]
    assert "Arms are compared with depth=34: no baseline is named." in study.problems


def test_runs_of_an_arm_that_differ_in_more_than_their_seed_are_named():
    runs = [
        of("lr=1", 1, params={"epochs": "5", "lr": "5e-4"}),
        of("lr=1", 2, params={"epochs": "8", "lr": "0.0005"}),
    ]
    (said,) = assemble("s", plan(seeds=(1, 2)), [*runs, of("lr=2")]).problems
    assert said == "The runs of lr=1 differ in more than their seed: epochs (5, 8)."


def test_a_search_is_ranked_by_its_objective_not_by_the_test_set():
    holdout = {"trial 1": 0.7, "trial 2": 0.9, "trial 3": 0.0}
    runs = [
        of(arm, claims={SELECTED: 1 - share, FINAL: 0.5, BEST: 0.5, "selected/holdout_accuracy": share})
        for arm, share in holdout.items()
    ]
    study = assemble("s", plan(arms={}, baseline=None), [*runs, of("trial 4", state="pruned")])
    assert [arm.name for arm in study.ranked] == ["trial 2", "trial 1", "trial 3", "trial 4"]
    assert [arm.name for arm in study.arms] == ["trial 1", "trial 2", "trial 3", "trial 4"]  # colours stay
    assert conclusions(study)[0].startswith(
        "trial 2 is the best of 3 trials by the study's objective (holdout,"
    )
    table = arms_table(study)
    assert table.columns[2] == "objective: holdout, selected epoch, %"
    assert [str(row[2]) for row in table.rows][:2] == ["90.00 one run", "70.00 one run"]


def test_overrides_that_change_the_question_keep_published_numbers_from_being_compared():
    reference = {"lr=1": {BEST: 0.9}}
    for overrides, comparable in (
        ({}, True),
        ({"data": "elsewhere", "holdout": 0.1, "recipe": "paper-code", "device": "cpu"}, True),
        ({"recipe": "fast"}, False),
        ({"data": "digits"}, False),
        ({"epochs": 5}, False),
    ):
        study = assemble("s", plan(references=reference, overrides=overrides), [of("lr=1"), of("lr=2")])
        assert (study.other_conditions == "") == comparable, overrides
        table = arms_table(study)
        inside = table.rows[0][table.columns.index("compatible with ours")].text
        assert inside == ("yes" if comparable else "not comparable")


@pytest.mark.parametrize("name", [name for name in shipped() if load(name).references])
def test_only_the_full_form_of_a_shipped_study_is_compared_with_what_was_published(name: str):
    for form in ("full", "small"):  # the smoke form has nothing published beside it
        outline = load(name, form=form).outline()
        arms = [of(arm) for arm in outline.arms]
        assert (assemble(name, outline, arms).other_conditions == "") == (form == "full"), form


@pytest.mark.parametrize(
    ("ours", "value", "fits"),
    [
        ((0.920, 0.923, 0.926), 0.932, "yes"),  # outside the interval of their mean, and within their scatter
        ((0.920, 0.923, 0.926), 0.960, "no, above"),
        ((0.920, 0.923, 0.926), 0.890, "no, below"),
        ((0.920,), 0.925, "yes"),
    ],
)
def test_a_published_run_is_compatible_where_it_could_be_one_more_seed_of_ours(
    ours: tuple[float, ...], value: float, fits: str
):
    runs = [of("lr=1", seed, claims={BEST: share}, test_images=3925) for seed, share in enumerate(ours)]
    study = assemble("s", plan(references={"lr=1": {BEST: value}}, seeds=tuple(range(len(ours)))), runs)
    table = arms_table(study)
    assert table.rows[0][table.columns.index("compatible with ours")].text == fits


@pytest.mark.parametrize("value", [float("nan"), 92.5, -0.1])
def test_published_accuracies_that_are_no_shares_are_named_and_left_out(value: float):
    outline = plan(references={"lr=1": {BEST: value}, "lr=2": {BEST: 0.9}}, reference_images=100)
    study = assemble("s", outline, [of("lr=1"), of("lr=2")])
    assert dict(study.arms[0].reference) == {}
    assert any("is no share in [0, 1]: left out" in problem for problem in study.problems)
    assert published(outline) is None  # one arm alone is nothing to compare


def test_intervals_of_shares_stay_within_what_shares_can_be():
    runs = [of("lr=1", seed, claims={SELECTED: share}) for seed, share in ((1, 0.99), (2, 0.9))]
    interval = assemble("s", plan(seeds=(1, 2)), runs).arms[0].estimate(SELECTED).interval
    assert interval is not None
    assert interval.high == 1.0


def test_arms_are_compared_by_what_the_baseline_has_too():
    runs = [of("lr=1", claims={BEST: 0.9}), of("lr=2")]
    study = assemble("s", plan(), runs)
    assert study.metric == BEST
    assert any("flatters" in sentence for sentence in conclusions(study))


def test_the_first_of_two_runs_without_a_seed_counts():
    first, second = of("lr=1", None, run_id="one"), of("lr=1", None, run_id="two")
    study = assemble("s", plan(), [first, second])
    assert study.arms[0].runs == (first,)
    assert "Two runs for lr=1, without a seed: one came first and counts, two does not." in study.problems
