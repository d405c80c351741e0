"""What a report says beside the pairs, on studies whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from imagenette.report.compare import compare
from imagenette.report.conclusions import conclusions, points
from imagenette.report.findings import Findings
from imagenette.report.study import Arm, Study
from imagenette.report.study_report import StudyReport
from tests.report.simulated import run
from tests.stats.simulated import study as draw

DECAYS = (0.0, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2)


def made(
    effects: Sequence[float],
    *,
    seeds: int = 4,
    sd: float = 0.003,
    seconds: Sequence[float] = (100.0,) * 6,
    draws: int = 8,
) -> Study:
    """Weight decays with 5e-4 for a baseline; each run takes four epochs, a quarter of its seconds each."""
    drawn = draw(np.random.default_rng(draws), seeds=[seeds] * 6, sd=[sd] * 6, effects=effects)
    epochs = np.arange(1.0, 5)
    arms = []
    for decay, scores, time in zip(DECAYS, drawn, seconds, strict=True):
        name = f"weight_decay={decay}"
        runs = [
            replace(
                run(right, arm=name, seed=seed),
                seconds=time,
                curves={"test/accuracy": (epochs, right.mean() - 0.1 * (4 - epochs))},
                elapsed=(epochs, time * epochs / 4),
            )
            for seed, right in enumerate(scores.right if scores.right is not None else ())
        ]
        arms.append(Arm(name=name, values={"weight_decay": decay}, runs=tuple(runs)))
    return Study(name="s", title="S", arms=tuple(arms), baseline=arms[2])


def found(study: Study) -> Findings:
    return Findings.of(study, compare(study))


def test_a_small_difference_is_practically_none_where_a_margin_is_named():
    study = made([0, 0, 0, 0, 0, -0.05], seeds=12)
    assert {each.verdict for each in compare(study)} == {"open", "worse"}
    named = replace(study, margin=0.01)
    assert [each.verdict for each in compare(named)] == [*["equal"] * 4, "worse"]
    said = conclusions(named)
    assert said[1].startswith("Practically equal to weight_decay=0.0005, within 1 point: weight_decay=0.0, ")
    assert not any("No difference from" in sentence for sentence in said)
    assert not any(each.within_margin for each in compare(made([0] * 6, seeds=1)))  # one run tells no seeds


def test_a_difference_that_is_real_and_below_the_margin_is_said_to_be_both():
    study = replace(made([0, 0, 0, 0, 0, -0.02], seeds=20), margin=0.04)
    (finding,) = [sentence for sentence in conclusions(study) if " is worse than " in sentence]
    assert "points, which is less than the study's margin (" in finding


def test_a_steady_fall_is_one_trend_and_a_single_bad_end_is_not_called_steady():
    (trend,) = found(made([0.02, 0.012, 0.004, -0.004, -0.012, -0.02])).trends
    assert trend.step.value == pytest.approx(-0.008, abs=0.003)
    assert trend.p_corrected < 0.001
    odd = [
        found(made([0.02, 0.012, 0.004, -0.004, -0.012, -0.02], draws=draws)).trends[0].odd
        for draws in range(20)
    ]
    assert sum(each is not None for each in odd) <= 4
    (trend,) = found(made([0, 0, 0, 0, 0, -0.06])).trends
    assert trend.odd is not None
    assert trend.odd[0] == "weight_decay=0.01"
    said = conclusions(made([0, 0, 0, 0, 0, -0.06]))
    assert any("; not evenly: weight_decay=0.01 lies " in sentence for sentence in said)
    assert any(sentence.startswith("No steady rise or fall") for sentence in conclusions(made([0.0] * 6)))


def test_a_knob_of_words_and_a_grid_with_holes_have_no_trend():
    study = made([0.0] * 6)
    words = tuple(replace(arm, values={"optimizer": arm.name}) for arm in study.arms)
    assert found(replace(study, arms=words)).trends == ()
    grid = [
        replace(arm, values={"lr": float(place // 3), "weight_decay": float(place % 3)})
        for place, arm in enumerate(study.arms)
    ]
    assert [trend.knob for trend in found(replace(study, arms=tuple(grid))).trends] == ["weight_decay"]
    assert found(replace(study, arms=tuple(grid[:5]))).trends == ()


def test_the_front_holds_arms_that_none_beats_in_both_and_nothing_where_all_cost_the_same():
    study = made([-0.02, -0.05, 0, 0.03, 0.0, -0.06], seconds=[50, 60, 100, 200, 300, 400])
    assert found(study).front == ("weight_decay=0.0", "weight_decay=0.0005", "weight_decay=0.001")
    assert found(made([0.0, 0.02, 0.0, 0.0, 0.0, 0.0], seconds=[100, 101, 102, 103, 104, 105])).front == ()


def test_time_to_a_target_is_the_first_epoch_that_reaches_it():
    study = made([0, 0, 0, 0, 0, -0.15])
    lowest = found(study)
    tops = [max(run.curves["test/accuracy"][1]) for run in study.runs]
    assert lowest.target is not None
    assert 0 <= min(tops) - lowest.target < 0.01  # a whole per cent that every run reached
    assert all(reached.runs == 4 for reached in lowest.reached.values())
    named = found(replace(study, target=0.85))
    assert named.reached["weight_decay=0.01"].runs == 0
    first = named.reached["weight_decay=0.0"]
    assert (first.runs, first.epochs, first.seconds) == (4, 4.0, 100.0)


def test_what_runs_can_find_shrinks_with_more_of_them():
    few, many = (found(made([0.0] * 6, seeds=seeds, sd=0.006)).power for seeds in (3, 10))
    assert few is not None
    assert many is not None
    assert many.detectable < few.detectable / 1.5
    assert few.needed is not None
    assert few.needed > 3
    assert few.size == 0.01
    assert found(made([0.0] * 6, seeds=1)).power is None


def test_a_seed_far_off_and_a_spread_below_its_floor_are_named():
    study = made([0.0] * 6)
    arm = study.arms[1]
    right = np.ones(3925, bool)
    right[:1200] = False
    odd = replace(arm, runs=(*arm.runs[:3], run(right, arm=arm.name, seed=3)))
    said = conclusions(replace(study, arms=(study.arms[0], odd, *study.arms[2:])))
    assert any(sentence.startswith("Seed 3 of weight_decay=0.0001 lies 2") for sentence in said)
    rng = np.random.default_rng(0)
    same = tuple(run(rng.permutation(right), arm=arm.name, seed=seed) for seed in range(4))
    said = conclusions(replace(study, arms=(study.arms[0], replace(arm, runs=same), *study.arms[2:])))
    assert any(
        sentence.startswith("The runs of weight_decay=0.0001 scatter by 0.01 points, less than the 0.")
        for sentence in said
    )


def test_a_search_and_a_single_arm_have_none_of_it():
    study = made([0.0] * 6)
    for bare in (replace(study, search=True, baseline=None), replace(study, arms=study.arms[2:3])):
        assert not found(bare).spreads
        assert len(StudyReport.of(bare).tables) == 1


def test_points_are_told_as_one_says_them():
    assert [points(share) for share in (0.15, 0.046, 0.0005)] == ["15.0 points", "4.6 points", "0.05 points"]
    assert [points(share, exact=True) for share in (0.01, 0.005)] == ["1 point", "0.5 points"]
