"""Studies whose truth is known: images of uneven difficulty, seeds that are better or worse throughout, arms
that each have images of their own. Each run is a draw, image by image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imagenette.report.runs import TrackedRun
from imagenette.report.study import Arm, Study
from imagenette.results import BEST, FINAL, SELECTED


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def run(
    right: np.ndarray, *, arm: str = "a", seed: int | None = 0, images: str = "same", **more: object
) -> TrackedRun:
    """A finished run that has these images right, in every epoch that counts."""
    share = float(right.mean())
    return TrackedRun(
        run_id=f"{arm}-{seed}",
        name=arm,
        arm=arm,
        seed=seed,
        claims={SELECTED: share, FINAL: share, BEST: share},
        test_images=len(right),
        answers={SELECTED: right, FINAL: right},
        images=images,
        **more,  # type: ignore[arg-type]
    )


def study_of(arms: dict[str, Sequence[TrackedRun]]) -> Study:
    """The first arm is the baseline."""
    made = tuple(Arm(name=name, runs=tuple(runs)) for name, runs in arms.items())
    return Study(name="simulated", title="Simulated", arms=made, baseline=made[0])


def simulate(
    rng: np.random.Generator,
    *,
    arms: int = 5,
    seeds: int = 3,
    images: int = 1000,
    seed_sd: float = 0.0,
    own_images: float = 0.0,
    effects: Sequence[float] = (),
) -> tuple[Study, list[float]]:
    """A study, and the accuracy of each arm on its test images that ever more seeds would average to.

    seed_sd: of a run's shift, in logits (0.1 is 0.6 points here); own_images: of an arm's shift of each
    image; effects: shift of each arm.
    """
    share = rng.beta(6, 0.6, images).clip(1e-6, 1 - 1e-6)  # nine in ten right on average, a few hopeless
    difficulty = np.log(share / (1 - share))
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    found, truths = {}, []
    for arm in range(arms):
        logits = difficulty + own_images * rng.standard_normal(images) + (effects[arm] if effects else 0.0)
        runs = []
        for seed in range(seeds):
            right = rng.random(images) < sigmoid(logits + seed_sd * rng.standard_normal())
            runs.append(run(right, arm=f"arm {arm}", seed=seed))
        found[f"arm {arm}"] = runs
        truths.append(
            float(sigmoid(logits[:, None] + seed_sd * nodes).mean(axis=0) @ weights / weights.sum())
        )
    return study_of(found), truths
