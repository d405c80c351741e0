"""What may be concluded, in sentences. They say no more than the tests behind them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from imagenette.report.compare import Comparison, compare
from imagenette.report.study import Arm, Study
from imagenette.results import BEST, METRICS
from imagenette.stats import LEVEL, holm


def conclusions(study: Study, comparisons: Sequence[Comparison] | None = None) -> list[str]:
    """Which differences are real, and what the tests cannot tell."""
    found = compare(study) if comparisons is None else comparisons
    base = study.baseline
    if study.search:
        return _of_a_search(study)
    if base is None or not found:
        return ["There is nothing to compare yet."] if study.arms else []
    by = METRICS[study.metric]
    sentences = []
    for kind, single in itertools.product(("better", "worse"), (False, True)):
        group = [each for each in found if each.verdict == kind and each.one_run_each == single]
        if group:
            start = "As single runs, " if single else ""
            verb = "is" if len(group) == 1 else "are"
            named = _listed([_with_numbers(each) for each in group])
            sentences.append(f"{start}{named} {verb} {kind} than {base.name} ({by}).")
    unclear = [each for each in found if each.verdict == "open" and each.p is not None]
    if unclear:
        widest = max(abs(each.value) for each in unclear)
        named = _listed([each.arm for each in unclear])
        if sentences:
            sentences.append(
                f"No real difference from {base.name} is shown for {named}: what was measured, up to "
                f"{100 * widest:.2f} points, can be chance."
            )
        else:
            none = f"none of {named} can" if len(unclear) > 1 else f"{named} cannot"
            sentences.append(
                f"No real difference is shown: {none} be told apart from {base.name} ({by}); what was "
                f"measured, up to {100 * widest:.2f} points, can be chance."
            )
    return [*sentences, *_limits(study, found)]


def _limits(study: Study, found: Sequence[Comparison]) -> list[str]:
    """What stands behind the sentences, and what does not."""
    sentences = []
    untested = [each.arm for each in found if each.p is None]
    if untested:
        sentences.append(
            f"Not tested, for how many test images stand behind it is not known: {_listed(untested)}."
        )
    compared = {each.arm for each in found} | {study.baseline.name if study.baseline else ""}
    without = [arm.name for arm in study.arms if arm.runs and arm.name not in compared]
    if without:
        sentences.append(f"Not compared, for no run of it has {study.metric}: {_listed(without)}.")
    over_images = [each for each in found if each.p_images is not None]
    corrected = holm([each.p_images for each in over_images if each.p_images is not None])
    shaky = [
        each.arm
        for each, p in zip(over_images, corrected, strict=True)
        if p < LEVEL and each.verdict == "open" and each.p_seeds is not None
    ]
    if shaky:
        sentences.append(
            f"Over images alone (corrected) the runs of {_listed(shaky)} do differ from those of "
            f"{found[0].baseline}; that other seeds would differ too is not shown. More seeds would tell."
        )
    single = [each.arm for each in found if each.one_run_each and each.p is not None]
    if study.one_run_each:
        sentences.append(
            "Every arm is one run: these tests speak of these networks on other images; what another seed "
            "would give is not in them."
        )
    elif single:
        sentences.append(f"One run against one, so that other seeds are not in the test: {_listed(single)}.")
    lonely = [each.arm for each in found if 1 in each.runs and not each.one_run_each]
    if lonely:
        sentences.append(
            f"One run against several, taken to scatter like theirs: {_listed(lonely)} against "
            f"{found[0].baseline}."
        )
    partly = [each.arm for each in found if 0 < each.pairs < min(each.runs)]
    if partly:
        sentences.append(f"Predictions of the same images are not stored for every seed: {_listed(partly)}.")
    unpaired = [each.arm for each in found if each.images is None and each.p_images is not None]
    if unpaired:
        which = "Predictions" if len(unpaired) == len(found) else f"For {_listed(unpaired)} predictions"
        sentences.append(
            f"{which} of the same images are not stored, so accuracies were compared unpaired (Fisher's "
            "exact test), which has less power."
        )
    if study.metric == BEST:
        sentences.append(
            "Each accuracy is that of the epoch that was best on the test set itself: it flatters."
        )
    elif study.chosen_on_test:
        sentences.append("The epochs were selected on the test set: the accuracies flatter.")
    if "/test_" in study.objective:
        sentences.append(f"The study's objective {study.objective} is measured on the test set.")
    return sentences


def _of_a_search(study: Study) -> list[str]:
    done = [arm for arm in study.ranked if arm.runs]
    if not done:
        return []
    by = METRICS.get(study.objective, study.objective)
    best = f"{done[0].name} is the best of {len(done)} trials by the study's objective ({by})"
    flatters = ", which is the test set itself" if "/test_" in study.objective else ""
    return [
        f"{best}{flatters}; being the best of many draws flatters it, and it is one run. Train it again with "
        "other seeds before it is believed. Trials are not tested against each other."
    ]


def cut(study: Study, shown: Sequence[Arm]) -> str:
    """For a caption, where a figure leaves arms out."""
    total = sum(bool(arm.runs) for arm in study.arms)
    return f" {len(shown)} of {total} arms are drawn." if len(shown) < total else ""


def _with_numbers(each: Comparison) -> str:
    return f"{each.arm} ({points(each.value)}, corrected {p_value(each.p_corrected or 0.0)})"


def points(value: float) -> str:
    """A difference of shares in percentage points: `-2.80 points`."""
    return f"{100 * value:+.2f} points".replace("-", "\N{MINUS SIGN}")


def p_value(p: float) -> str:
    """`p = 0.021`, `p < 0.0001`; near the level to as many digits as tell the side."""
    if p < 1e-4:
        return "p < 0.0001"
    return f"p = {p:.4f}" if 0.045 < p < 0.055 else f"p = {p:.2g}"


def method() -> str:
    """How the sentences come about, for the foot of a page."""
    return (
        "A difference is called real where chance would hardly give it, neither with other test images "
        "(McNemar's exact test on the stored predictions, pooled over seeds, each image counted once) nor "
        "with other seeds (Welch's t-test over the runs, where an arm has two or more): the larger p, "
        f"after Holm's correction over the table, is below {LEVEL:g}. Intervals are for 95 %: Student's t "
        "over seeds, on these test images; of one run Wilson's, over test images. They are not corrected."
    )


def _listed(names: Sequence[str], *, most: int = 12) -> str:
    """`a`, `a and b`, `a, b and c`; of very many the first, and how many more."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
