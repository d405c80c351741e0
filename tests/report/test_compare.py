"""What each comparison is made of, and what it may not be made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imagenette.report.compare import compare
from imagenette.report.conclusions import conclusions, with_our_seeds
from imagenette.report.runs import TrackedRun
from imagenette.results import BEST, SELECTED
from imagenette.stats import Scores, Spread, mcnemar, two_level, unpaired_shares
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
    assert (found.p, found.seeds) == (mcnemar(ours, theirs).p, None)
    assert found.value == pytest.approx(-20 / 400)
    assert found.verdict == "worse"


def test_seeds_and_images_are_in_one_interval():
    rng = np.random.default_rng(0)
    arms = {
        "base": [rng.random(400) < 0.8 for _ in range(3)],
        "arm": [rng.random(400) < 0.9 for _ in range(3)],
    }
    study = study_of({name: [run(r, seed=s) for s, r in enumerate(runs)] for name, runs in arms.items()})
    known = {name: Scores([r.mean() for r in runs], 400, np.array(runs)) for name, runs in arms.items()}
    expected = two_level(known["arm"], known["base"], Spread.of(list(known.values())))
    found = only(study)
    assert (found.p, found.interval) == (expected.p, expected.interval)
    assert found.told == found.runs == (3, 3)
    said = conclusions(study)[0]
    assert said.startswith(f"arm is better than base by {100 * found.value:.1f} points (")
    assert "for new seeds and images; corrected p" in said


def test_the_order_of_runs_and_their_numbers_do_not_matter():
    rng = np.random.default_rng(1)
    ours, theirs = [rng.random(300) < 0.9 for _ in range(4)], [rng.random(300) < 0.9 for _ in range(2)]

    def made(order: list[int]):
        arm = [run(ours[i], seed=7 * i) for i in order]
        return only(study_of({"base": [run(r, seed=s) for s, r in enumerate(theirs)], "arm": arm}))

    one, other = made([0, 1, 2, 3]), made([3, 1, 0, 2])
    assert one.p == pytest.approx(other.p)
    assert one.runs == (4, 2)


def test_other_images_are_never_paired():
    study = study_of(
        {"base": [run(answers(10), images="one set")], "arm": [run(answers(30), images="other")]}
    )
    found = only(study)
    assert not found.paired
    assert found.p == unpaired_shares(370, 400, 390, 400).p
    assert any("as if each arm had its own" in sentence for sentence in conclusions(study))


def test_predictions_that_contradict_the_accuracy_are_not_used():
    liar = replace(run(answers(30)), claims={SELECTED: 0.5})
    assert liar.right(SELECTED) is None
    assert any("its predictions say" in wrong for wrong in liar.complaints())
    assert not only(study_of({"base": [run(answers(10))], "arm": [liar]})).paired


def bare(share: float, seed: int = 1, images: int | None = None) -> TrackedRun:
    claims = {BEST: share, SELECTED: share}
    return TrackedRun(run_id="r", name="r", arm="r", seed=seed, claims=claims, test_images=images)


@pytest.mark.parametrize("runs", [1, 2])
def test_accuracies_without_a_number_of_images_are_not_tested_and_it_is_said(runs: int):
    """Two runs each of .9000 and .9003 would be `better`, for their seeds hardly scatter."""
    sides = {
        name: [bare(share, seed) for seed in range(runs)] for name, share in (("base", 0.9), ("arm", 0.9003))
    }
    study = replace(study_of(sides), metric=BEST)
    found = only(study)
    assert (found.p, found.p_corrected, found.interval, found.verdict) == (None, None, None, "open")
    assert "Not tested, for how many test images stand behind it is not known: arm." in conclusions(study)


def test_images_without_predictions_count_once_however_many_seeds_saw_them():
    def three(share: float) -> list[TrackedRun]:
        return [bare(share + s / 1e4, s, images=400) for s in (1, 2, 3)]

    found = only(study_of({"base": three(0.9), "arm": three(0.87)}))
    assert found.seeds is not None
    assert found.seeds < 0.002 < 0.02 < found.images
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
    assert found.value < -0.7
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
    assert "With a single run, which is taken to scatter as others do: base." in conclusions(study)


def test_one_odd_run_does_not_cost_the_pairs_of_the_others():
    odd = run(answers(20), seed=1, images="other images")
    base = [run(answers(10), seed=seed) for seed in (1, 2)]
    study = study_of({"base": base, "arm": [odd, run(answers(12), seed=2)]})
    assert only(study).told == (1, 2)
    assert any("not stored for every run: arm" in sentence for sentence in conclusions(study))


def test_an_arm_without_the_metric_is_said_not_to_be_compared():
    lacks = replace(run(answers(10)), claims={BEST: 0.9})
    study = study_of({"base": [run(answers(10))], "arm": [run(answers(12))], "bare": [lacks]})
    assert "Not compared, for no run of it has selected/test_accuracy: bare." in conclusions(study)


def test_holm_counts_the_pairs_that_were_tested():
    none = [bare(0.5)]
    study = study_of({"base": [run(answers(10))], "arm": [run(answers(40))], "untested": none})
    found = {each.arm: each for each in compare(study)}
    assert found["untested"].p is None
    assert found["arm"].p_corrected == found["arm"].p


def test_verdicts_on_a_study_that_is_not_complete_are_preliminary():
    study = study_of({"base": [run(answers(10))], "arm": [run(answers(40))]})
    assert not any("Preliminary" in sentence for sentence in conclusions(study))
    going = replace(study, status="running")
    assert conclusions(going)[0].startswith("Preliminary, for 2 of 2 runs are there")


def test_a_difference_that_is_open_says_what_is_ruled_out_and_no_chance_beside_a_real_one():
    rng = np.random.default_rng(3)
    base = rng.random(3925) < 0.9

    def runs(lower: float) -> list[TrackedRun]:
        tossed = [np.where(rng.random(3925) < 0.04, rng.random(3925) < 0.9, base) for _ in range(3)]
        return [run(right & (rng.random(3925) >= lower), seed=seed) for seed, right in enumerate(tossed)]

    study = study_of({"base": runs(0), "same": runs(0), "less": runs(0.05)})
    real, open_ = conclusions(study)[:2]
    assert real.startswith("less is worse than base by ")
    assert open_.startswith("No difference from base is shown for same; differences beyond ")
    assert open_.endswith(" points are unlikely.")


def test_published_single_runs_are_held_against_the_scatter_of_our_seeds():
    public = replace(study_of({"a": [bare(0.92, images=3925)], "b": [bare(0.89, images=3925)]}), metric=BEST)
    assert compare(public)[0].verdict == "worse"  # over images alone
    assert with_our_seeds(public, Spread(1e-5, 10, 0.0)) == [
        "If its seeds scattered as ours do (sd 0.32 points), b would still differ from a."
    ]
    assert "none would differ" in with_our_seeds(public, Spread(1e-3, 10, 0.0))[0]
    assert with_our_seeds(public, Spread(0.0, 0, 0.0)) == []
