"""What the report says, held against truths that are known: 2,000 simulated studies each."""

from __future__ import annotations

import numpy as np
import pytest

from imagenette import stats
from imagenette.report.compare import compare
from imagenette.report.conclusions import conclusions
from imagenette.results import SELECTED
from tests.report.simulated import simulate

TIMES = 2000
# With a true rate of 95 %, 2,000 draws lie within 94.0 and 96.0 % in 19 of 20 cases.
COVERS = (0.93, 0.97)


def share_covering(draw, times: int = TIMES) -> float:
    rng = np.random.default_rng(5)
    return float(np.mean([draw(rng) for _ in range(times)]))


def of_seeds(rng) -> bool:
    return 0.925 in stats.t_interval(rng.normal(0.925, 0.003, 3).tolist())


def of_one_run(rng) -> bool:
    return 0.925 in stats.wilson(int(rng.binomial(3925, 0.925)), 3925)


def of_a_paired_difference(rng) -> bool:
    _, better, worse, _ = rng.multinomial(3925, [0.89, 0.04, 0.03, 0.04])
    return 0.01 in stats.paired_shares(stats.McNemar(int(better), int(worse), 1.0), 3925).interval


def of_an_unpaired_difference(rng) -> bool:
    ours, theirs = rng.binomial(3925, [0.93, 0.92])
    return 0.01 in stats.unpaired_shares(int(ours), 3925, int(theirs), 3925).interval


@pytest.mark.parametrize(
    "draw",
    [of_seeds, of_one_run, of_a_paired_difference, of_an_unpaired_difference],
)
def test_intervals_cover_the_truth_19_times_in_20(draw):
    assert COVERS[0] <= share_covering(draw) <= COVERS[1]


def run_studies(times: int, **how: object) -> tuple[float, float, float]:
    """Shares of: arms whose interval covers the truth, pairs whose interval does, studies with a false
    word."""
    rng = np.random.default_rng(2)
    arms, pairs, false = [], [], []
    for _ in range(times):
        study, truths = simulate(rng, **how)  # type: ignore[arg-type]
        found = compare(study)
        arms += [
            truth in arm.estimate(SELECTED).interval for arm, truth in zip(study.arms, truths, strict=True)
        ]
        pairs += [truth - truths[0] in each.interval for each, truth in zip(found, truths[1:], strict=True)]
        words = " ".join(conclusions(study, found))
        false.append("No difference is shown between" not in words)
        assert false[-1] == (" better than " in words or " worse than " in words)
    return float(np.mean(arms)), float(np.mean(pairs)), float(np.mean(false))


def test_the_sentences_of_equal_arms_are_false_once_in_twenty_studies_at_most():
    arms, pairs, false = run_studies(300, seeds=3, seed_sd=0.1)
    assert 0.92 <= arms <= 0.98
    assert pairs >= 0.94  # they are for new images too, and these truths are of these images
    assert false <= 0.05


def test_single_runs_of_equal_networks_are_called_different_once_in_twenty_at_most():
    *_, false = run_studies(600, seeds=1)
    assert false <= 0.05
