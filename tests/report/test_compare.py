"""Which test is made of what, and what it may not be made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imagenette.report.compare import compare
from imagenette.report.conclusions import conclusions
from imagenette.report.runs import TrackedRun
from imagenette.results import BEST, SELECTED
from imagenette.stats import mcnemar, over_seeds, unpaired_shares
from tests.report.simulated import run, study_of


def answers(wrong: int, n: int = 400, start: int = 0) -> np.ndarray:
    right = np.ones(n, bool)
    right[start : start + wrong] = False
    return right


def only(study):
    (found,) = compare(study)
    return found


def test_one_run_each_is_mcnemar_on_the_stored_predictions():
    ours, theirs = answers(30), answers(10, start=395 - 10)
    found = only(study_of({"base": [run(theirs)], "arm": [run(ours)]}))
    test = mcnemar(ours, theirs)
    assert (found.p_images, found.p_seeds, found.p) == (test.p, None, test.p)
    assert found.value == pytest.approx(-20 / 400)
    assert found.verdict == "worse"


def test_with_seeds_the_larger_of_both_ps_counts():
    rng = np.random.default_rng(0)
    ours = [rng.random(400) < share for share in (0.95, 0.85)]  # seeds far apart
    theirs = [rng.random(400) < share for share in (0.80, 0.79)]
    study = study_of(
        {
            "base": [run(right, seed=seed) for seed, right in enumerate(theirs)],
            "arm": [run(right, seed=seed) for seed, right in enumerate(ours)],
        }
    )
    found = only(study)
    assert found.p_images == mcnemar(np.array(ours), np.array(theirs)).p < 0.001
    assert found.p_seeds == over_seeds([r.mean() for r in ours], [r.mean() for r in theirs]).p > 0.05
    assert found.p == found.p_seeds
    assert found.verdict == "open"  # these images would say so again, other seeds need not
    assert any(
        s.startswith("Over images alone (corrected) the runs of arm do differ") for s in conclusions(study)
    )


def test_runs_are_paired_by_seed_whatever_their_order():
    rng = np.random.default_rng(1)
    ours = {seed: rng.random(300) < 0.9 for seed in (1, 2, 3)}
    theirs = {seed: rng.random(300) < 0.9 for seed in (3, 1, 2)}
    found = only(study_of({"base": [run(r, seed=s) for s, r in theirs.items()],
                           "arm": [run(r, seed=s) for s, r in ours.items()]}))  # fmt: skip
    expected = mcnemar(np.array([ours[s] for s in (1, 2, 3)]), np.array([theirs[s] for s in (1, 2, 3)]))
    assert found.images == expected


def test_other_images_are_never_paired():
    study = study_of(
        {"base": [run(answers(10), images="one set")], "arm": [run(answers(30), images="other")]}
    )
    found = only(study)
    assert found.images is None
    assert found.p_images == unpaired_shares(370, 400, 390, 400).p
    assert any("unpaired" in sentence for sentence in conclusions(study))


def test_predictions_that_contradict_the_accuracy_are_not_used():
    liar = replace(run(answers(30)), claims={SELECTED: 0.5})
    assert liar.right(SELECTED) is None
    assert any("its predictions say" in wrong for wrong in liar.complaints())
    assert only(study_of({"base": [run(answers(10))], "arm": [liar]})).images is None


def test_accuracies_without_a_number_of_images_are_not_tested_and_it_is_said():
    def bare(share: float) -> TrackedRun:
        return TrackedRun(run_id="r", name="r", arm="r", seed=1, claims={BEST: share})

    study = replace(study_of({"base": [bare(0.9)], "arm": [bare(0.1)]}), metric=BEST)
    found = only(study)
    assert (found.p, found.p_corrected, found.interval, found.verdict) == (None, None, None, "open")
    assert conclusions(study)[0] == "Not tested, for how many test images stand behind it is not known: arm."


def test_images_without_predictions_count_once_however_many_seeds_saw_them():
    def three(share: float) -> list[TrackedRun]:
        return [
            replace(run(answers(0)), seed=s, claims={SELECTED: share + s / 1e4}, answers={})
            for s in (1, 2, 3)
        ]

    found = only(study_of({"base": three(0.9), "arm": three(0.87)}))
    assert found.p_seeds is not None
    assert found.p_seeds < 1e-6
    assert found.p_images == unpaired_shares(348, 400, 360, 400).p > 0.1
    assert found.verdict == "open"


def test_what_has_no_baseline_is_not_compared():
    study = study_of({"base": [run(answers(3))], "arm": [run(answers(4))]})
    assert compare(replace(study, baseline=None)) == []
    assert conclusions(replace(study, baseline=None)) == ["There is nothing to compare yet."]


def test_an_arm_that_collapsed_is_compared_like_any_other():
    rng = np.random.default_rng(4)
    base = [run(rng.random(500) < 0.92, seed=seed) for seed in (1, 2, 3)]
    arm = [run(rng.random(500) < 0.10, seed=seed) for seed in (1, 2, 3)]
    found = only(study_of({"base": base, "arm": arm}))
    assert found.images is not None
    assert found.images.better + found.images.worse > 500
    assert found.verdict == "worse"


def test_one_run_against_several_speaks_of_the_means_in_the_table():
    right = {share: answers(round(400 * (1 - share))) for share in (0.8, 0.9, 0.95)}
    study = study_of(
        {
            "base": [run(right[0.9], seed=1)],
            "arm": [run(right[share], seed=seed) for seed, share in ((1, 0.8), (2, 0.95), (3, 0.95))],
        }
    )
    found = only(study)
    assert found.value == pytest.approx((0.8 + 0.95 + 0.95) / 3 - 0.9)
    assert found.verdict == "open"  # the pair of seed 1 alone would say much worse
    said = " ".join(conclusions(study))
    assert "As single runs" not in said
    assert "One run against several" in said


def test_seeds_that_meet_are_paired_first_and_the_others_in_their_order():
    rng = np.random.default_rng(5)
    ours = {seed: rng.random(300) < 0.9 for seed in (1, 2, 3)}
    theirs = {seed: rng.random(300) < 0.9 for seed in (3, 4, 5)}
    found = only(study_of({"base": [run(r, seed=s) for s, r in theirs.items()],
                           "arm": [run(r, seed=s) for s, r in ours.items()]}))  # fmt: skip
    assert found.pairs == 3
    expected = mcnemar(np.array([ours[s] for s in (3, 1, 2)]), np.array([theirs[s] for s in (3, 4, 5)]))
    assert found.images == expected


def test_one_odd_run_does_not_cost_the_pairs_of_the_others():
    odd = run(answers(20), seed=1, images="other images")
    base = [run(answers(10), seed=seed) for seed in (1, 2)]
    study = study_of({"base": base, "arm": [odd, run(answers(12), seed=2)]})
    assert only(study).pairs == 1
    assert any("not stored for every seed: arm" in sentence for sentence in conclusions(study))


def test_an_arm_without_the_metric_is_said_not_to_be_compared():
    bare = replace(run(answers(10)), claims={BEST: 0.9})
    study = study_of({"base": [run(answers(10))], "arm": [run(answers(12))], "bare": [bare]})
    assert "Not compared, for no run of it has selected/test_accuracy: bare." in conclusions(study)
