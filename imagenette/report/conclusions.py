"""What may be concluded, in sentences, the effect first. They say no more than the tests behind them."""

from __future__ import annotations

from collections.abc import Sequence

from imagenette.report.compare import Comparison, compare
from imagenette.report.findings import Findings, Trend
from imagenette.report.study import Arm, Study
from imagenette.results import BEST, METRICS
from imagenette.stats import LEVEL, Spread

_MOST = 12  # findings and names that are written out


def conclusions(
    study: Study, comparisons: Sequence[Comparison] | None = None, findings: Findings | None = None
) -> list[str]:
    """Which differences are real, which are practically none, what is ruled out where nothing is shown; the
    trend, the best, what so many runs can find; and what the test cannot tell."""
    found = compare(study) if comparisons is None else comparisons
    more = findings or Findings.of(study, found)
    base = study.baseline
    if study.search:
        return _of_a_search(study)
    if base is None or not found:
        return ["There is nothing to compare yet."] if study.arms else []
    real = sorted((each for each in found if each.real), key=lambda each: -abs(each.value))
    sentences = [_finding(each) for each in real[:_MOST]]
    if len(real) > _MOST:
        sentences.append(f"{len(real) - _MOST} more arms differ from {base.name}: see the table.")
    equal = [each.arm for each in found if each.verdict == "equal"]
    if equal and study.margin:
        sentences.append(
            f"Practically equal to {base.name}, within {points(study.margin, exact=True)}: {_listed(equal)} "
            f"(two one-sided tests, corrected p < {LEVEL:g})."
        )
    unclear = [each for each in found if each.verdict == "open" and each.interval]
    if unclear:
        sentences.append(_open(unclear, alone=not real and not equal))
    return [*_preliminary(study), *sentences, *_beyond_pairs(study, more), *limits(study, found)]


def verdict(each: Comparison) -> str:
    """What a comparison amounts to that is the only one: nothing is there to correct its p for."""
    if each.interval is None:
        more = f"{points(abs(each.value))} {'above' if each.value > 0 else 'below'}"
        return f"{each.arm} is {more} {each.baseline}, which could not be tested."
    return _open([each], alone=True) if each.verdict == "open" else _finding(each, corrected="")


def _open(unclear: Sequence[Comparison], *, alone: bool) -> str:
    """alone: no other arm differs from the baseline."""
    base, named = unclear[0].baseline, _listed([each.arm for each in unclear])
    beyond = max(max(-each.interval.low, each.interval.high) for each in unclear if each.interval)
    start = f"No difference from {base} is shown for {named}"
    if alone:
        start = f"No difference is shown between {base} and {named}"
    return f"{start}; differences beyond {points(beyond)} are unlikely."


def _finding(each: Comparison, *, corrected: str = "corrected ") -> str:
    """`weight_decay=0.01 is worse than weight_decay=0.0005 by 4.6 points (2.0 to 7.2 for new seeds and
    images; corrected p = 0.03).`"""
    assert each.interval is not None
    assert each.p_corrected is not None
    ends = sorted((abs(each.interval.low), abs(each.interval.high)))
    if each.interval.low < 0 < each.interval.high:  # for this pair alone, and unlike p not corrected
        ends = [0.0, max(ends)]
    chance = "new seeds and images" if each.seeds is not None else "new images; single runs"
    small = ", which is less than the study's margin" if each.within_margin else ""
    return (
        f"{each.arm} is {each.verdict} than {each.baseline} by {points(abs(each.value))}{small} "
        f"({100 * ends[0]:.1f} to {100 * ends[1]:.1f} for {chance}; {corrected}{p_value(each.p_corrected)})."
    )


def _beyond_pairs(study: Study, found: Findings) -> list[str]:
    """Of the study as a whole."""
    sentences = []
    for each in found.trends:
        step, p = each.step, p_value(each.p_corrected)
        if each.p_corrected < LEVEL:
            ends = sorted((abs(step.interval.low), abs(step.interval.high)))
            sentences.append(
                f"Accuracy {'rises' if step.value > 0 else 'falls'} with {each.knob}: by "
                f"{points(abs(step.value))} from one of its {each.values} values to the next, on average "
                f"({100 * ends[0]:.1f} to {100 * ends[1]:.1f}; one test over all of them, {p})"
                f"{_unevenly(each)}."
            )
        else:
            sentences.append(
                f"No steady rise or fall of accuracy with {each.knob} is shown (one test over its "
                f"{each.values} values, {p}){_unevenly(each)}."
            )
    if found.best:
        others = [arm for arm in found.compared if arm not in found.best]
        who = f"one of {_listed(found.best)}"
        if len(found.best) > max(2, len(others)):
            who = f"any arm but {_listed(others)}" if others else f"any of the {len(found.best)} arms"
        who = found.best[0] if len(found.best) == 1 else who
        top = max(found.chances, key=lambda arm: found.chances[arm], default="")
        share = f"{100 * found.chances[top]:.0f} %" if top else ""
        often = f"; {top} is it in {share} of draws" if top and len(found.best) > 1 else ""
        sentences.append(f"The best {'is' if len(found.best) == 1 else 'may be'} {who}{often}.")
    if power := found.power:
        price = f"; no number of seeds up to 200 would find {points(power.size, exact=True)} on so few images"
        if power.needed is not None:
            price = f"; to find {points(power.size, exact=True)}, {power.needed} seeds an arm are needed"
        price *= power.detectable > power.size
        sentences.append(
            f"A true difference of {points(power.detectable)} is found by four of five studies like this "
            f"one{price}."
        )
    if 0 < len(found.front) < len(found.compared):  # of all arms it would say nothing
        sentences.append(f"No arm is both faster and more accurate than {_listed(found.front)}.")
    for arm, seed, value in found.apart:
        where = "above" if value > 0 else "below"
        sentences.append(
            f"Seed {seed} of {arm} lies {points(abs(value))} {where} its siblings, more than chance."
        )
    for arm, parts in found.spreads.items():
        if parts.too_low and parts.measured is not None and parts.flips is not None:
            sentences.append(
                f"The runs of {arm} scatter by {100 * parts.measured:.2f} points, less than the "
                f"{100 * parts.flips:.2f} that tosses of single images alone give: such luck does not repeat."
            )
    return sentences


def _unevenly(trend: Trend) -> str:
    if trend.odd is None:
        return ""
    arm, value = trend.odd
    where = "above" if value > 0 else "below"
    return f"; not evenly: {arm} lies {points(abs(value))} {where} the line through the others"


def _preliminary(study: Study) -> list[str]:
    done, planned = len(study.runs), study.planned
    if study.status in ("", "finished") and done >= planned:
        return []
    return [
        f"Preliminary, for {done} of {planned} runs are there: whoever looks often sees chance more often."
    ]


def limits(study: Study, found: Sequence[Comparison]) -> list[str]:
    """What stands behind the sentences, and what does not."""
    base = found[0].baseline
    sentences = [f"Accuracies are of {METRICS[study.metric]}."]
    untested = [each.arm for each in found if each.p is None]
    if untested:
        sentences.append(
            f"Not tested, for how many test images stand behind it is not known: {_listed(untested)}."
        )
    compared = {each.arm for each in found} | {base}
    without = [arm.name for arm in study.arms if arm.runs and arm.name not in compared]
    if without:
        sentences.append(f"Not compared, for no run of it has {study.metric}: {_listed(without)}.")
    tested = [each for each in found if each.p is not None]
    if tested and all(each.seeds is None for each in tested):
        who = "Every arm is" if len(tested) > 1 else "Each is"
        sentences.append(
            f"{who} one run: the test speaks of these networks on other images; what another seed "
            "would give is not in it."
        )
    elif lonely := [
        *[base] * any(each.runs[1] == 1 for each in tested),
        *(each.arm for each in tested if each.runs[0] == 1),
    ]:
        sentences.append(f"With a single run, which is taken to scatter as others do: {_listed(lonely)}.")
    partly = [each.arm for each in tested if each.paired and each.told != each.runs]
    if partly:
        sentences.append(f"Predictions of the same images are not stored for every run: {_listed(partly)}.")
    unpaired = [each.arm for each in tested if not each.paired]
    if unpaired:
        which = "Predictions" if len(unpaired) == len(tested) else f"For {_listed(unpaired)} predictions"
        sentences.append(
            f"{which} of the same images are not stored, so images count as if each arm had its own, which "
            "has less power."
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


def with_our_seeds(public: Study, spread: Spread) -> list[str]:
    """Of published single runs: which of their differences would stand if their seeds scattered as ours
    do."""
    if not spread.freedom:
        return []
    stand = [each.arm for each in compare(public, spread=spread) if each.real]
    base = public.baseline.name if public.baseline else ""
    which = f"{_listed(stand)} would still differ from {base}" if stand else f"none would differ from {base}"
    return [f"If its seeds scattered as ours do (sd {100 * spread.variance**0.5:.2f} points), {which}."]


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


def points(share: float, *, exact: bool = False) -> str:
    """`4.6 points`, `0.05 points`. exact: of a number that somebody named, `1 point`."""
    text = f"{100 * share:.1f}" if share >= 0.001 else f"{100 * share:.2f}"
    if exact:
        text = f"{100 * share:g}"
    return f"{text} point{'s' * (text != '1')}"


def p_value(p: float) -> str:
    """`p = 0.021`, `p < 0.0001`; near the level to as many digits as tell the side."""
    if p < 1e-4:
        return "p < 0.0001"
    return f"p = {p:.4f}" if 0.045 < p < 0.055 else f"p = {p:.2g}"


def method() -> str:
    """How the sentences come about, for the foot of a page."""
    return (
        "A difference is called real where chance would hardly give it with other seeds and other test "
        "images: the two-level moderated Welch test, in which both are random and, from four arms on, an "
        "arm's spread over seeds is drawn towards the study's common one; its p, after Holm's correction "
        f"over the table, is below {LEVEL:g}. A difference's interval is for 95 %, new seeds and new images, "
        "and not corrected; an arm's own is Student's t over seeds, on these test images; of one run "
        "Wilson's, over test images."
    )


def _listed(names: Sequence[str], *, most: int = _MOST) -> str:
    """`a`, `a and b`, `a, b and c`; of very many the first, and how many more."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
