"""Runs put in order: an arm for each setting, one run for each of its seeds, and every oddity named.

Pure functions. Each choice made here (which run counts, which data set) is told to the reader in `problems`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

from imagenette.config import KNOBS, OPERATIONAL, canonical
from imagenette.report.runs import TrackedRun, number
from imagenette.report.study import Arm, Study
from imagenette.results import SELECTED, TEST_ACCURACIES
from imagenette.tracking.study_plan import StudyPlan, Value

_SAME_CONDITIONS = {*OPERATIONAL, "precision", "holdout"}
"""Overrides that leave published numbers comparable."""
_MOST, _MOST_OF_ALL = 8, 60
"""Of one kind of problem, and of all, as many are spelled out."""


def assemble(
    name: str,
    plan: StudyPlan | None,
    runs: Sequence[TrackedRun],
    *,
    problems: Iterable[str] = (),
    status: str = "",
    parent: str | None = None,
) -> Study:
    """The study from its runs, the oldest first, and from what was planned where that is known."""
    odd = list(problems)
    references = _sound_references(plan, odd)
    planned = _planned_arms_only(runs, plan, odd)
    usable = _on_one_data_set(planned, odd)
    kept = _one_for_each_cell(usable, odd)
    arms = _arms(plan, references, planned, usable, kept)
    complain(arms, plan, odd)
    search = plan is not None and not plan.arms
    baseline = None if search else _baseline(plan, arms, odd)
    if not kept:
        odd.insert(0, "No finished run yet." if runs else "The study is empty: it has no run at all.")
    odd = list(dict.fromkeys(odd))
    more = [f"And {len(odd) - _MOST_OF_ALL} more oddities."] * (len(odd) > _MOST_OF_ALL)
    return Study(
        name=name,
        title=plan.title if plan else name,
        arms=tuple(arms),
        baseline=baseline,
        search=search,
        objective=plan.objective if plan else "",
        problems=(*odd[:_MOST_OF_ALL], *more),
        reference_source=plan.reference_source if plan else None,
        other_conditions=_other_conditions(plan),
        metric=shared_metric(arms, baseline),
        margin=plan.margin if plan else None,
        target=plan.target if plan else None,
        status=status,
        parent=parent,
    )


# -- which runs count ----------------------------------------------------------------------------------


def _planned_arms_only(
    runs: Sequence[TrackedRun], plan: StudyPlan | None, problems: list[str]
) -> list[TrackedRun]:
    if plan is None or not plan.arms:
        return list(runs)
    strangers = [run for run in runs if run.arm not in plan.arms]
    for run in _first(strangers, problems, "runs of arms that the study does not plan are left out"):
        problems.append(f"{_called(run)} is left out: the study plans no arm {run.arm or '(no tag arm)'!r}.")
    return [run for run in runs if run.arm in plan.arms]


def _on_one_data_set(runs: Sequence[TrackedRun], problems: list[str]) -> list[TrackedRun]:
    """Runs on the data that most finished runs are on: accuracies on others cannot stand beside them."""
    count = Counter(run.data_digest for run in runs if run.finished)
    if len(count) < 2:
        return list(runs)
    digest = count.most_common(1)[0][0]
    others = [run for run in runs if run.finished and run.data_digest != digest]
    names = ", ".join(f"{d[:8] or 'unknown'} ({c} runs)" for d, c in count.most_common())
    problems.append(
        f"The runs are on {len(count)} data sets: {names}. Those on {digest[:8] or 'unknown'} are shown, the "
        f"others left out: {_some([_called(run) for run in others])}."
    )
    return [run for run in runs if run.data_digest == digest or not run.finished]


def _one_for_each_cell(
    runs: Sequence[TrackedRun], problems: list[str]
) -> dict[tuple[str, int | None], TrackedRun]:
    """The oldest finished run of each (arm, seed): taking another would be choosing."""
    kept: dict[tuple[str, int | None], TrackedRun] = {}
    twins = []
    for run in runs:
        if run.finished and kept.setdefault((run.arm, run.seed), run) is not run:
            twins.append(run)
    for run in _first(twins, problems, "more runs are second ones of their cell and are left out"):
        first = kept[run.arm, run.seed].run_id
        problems.append(
            f"Two runs for {run.arm or 'no arm'}, {_seed(run.seed)}: {first} came first and counts, "
            f"{run.run_id} does not."
        )
    return kept


def _arms(
    plan: StudyPlan | None,
    references: Mapping[str, Mapping[str, float]],
    planned: Sequence[TrackedRun],
    usable: Sequence[TrackedRun],
    kept: Mapping[tuple[str, int | None], TrackedRun],
) -> list[Arm]:
    """planned: runs of planned arms; usable: those of them on the data that counts."""
    values = plan.arms if plan and plan.arms else {run.arm: _values(run.arm) for run in usable}
    states = {(run.arm, run.seed): "its run is on other data" for run in planned}
    states |= {(run.arm, run.seed): run.state for run in usable if not run.finished}
    own: dict[str, list[TrackedRun]] = {arm: [] for arm in values}
    for run in kept.values():
        own[run.arm].append(run)
    if plan and plan.arms:
        seeds: dict[str, Iterable[int | None]] = {arm: plan.seeds_of(arm) for arm in values}
    else:
        found: dict[str, dict[int | None, None]] = {arm: {} for arm in values}
        for run in usable:
            found[run.arm][run.seed] = None
        seeds = {**found}
    return [
        Arm(
            name=arm or "(no arm)",
            values=knobs,
            runs=tuple(sorted(own[arm], key=lambda run: math.inf if run.seed is None else run.seed)),
            missing=tuple(
                f"{_seed(seed)}: {states.get((arm, seed), 'no run')}"
                for seed in seeds[arm]
                if (arm, seed) not in kept
            ),
            reference=references.get(arm, {}),
        )
        for arm, knobs in values.items()
    ]


def _sound_references(plan: StudyPlan | None, problems: list[str]) -> dict[str, dict[str, float]]:
    """Published figures that can be: accuracies are shares."""
    sound: dict[str, dict[str, float]] = {}
    for arm, figures in plan.references.items() if plan else ():
        for name, value in figures.items():
            if math.isfinite(value) and (0 <= value <= 1 or "accuracy" not in name):
                sound.setdefault(arm, {})[name] = value
            else:
                problems.append(f"The reference of {arm}, {name}={value:g}, is no share in [0, 1]: left out.")
    return sound


def _seed(seed: int | None) -> str:
    return "without a seed" if seed is None else f"seed {seed}"


def _values(arm: str) -> dict[str, Value]:
    """`lr=0.1 depth=18` as knobs; empty where the name is in other words."""
    values: dict[str, Value] = {}
    for word in arm.split():
        knob, equals, text = word.partition("=")
        if not equals or knob not in KNOBS:
            return {}
        value = number(text)
        whole = text.lstrip("-").isdecimal()
        values[knob] = text if value is None else int(text) if whole else value
    return values


def _baseline(plan: StudyPlan | None, arms: Sequence[Arm], problems: list[str]) -> Arm | None:
    if len(arms) < 2:
        return None
    named = next((arm for arm in arms if plan and arm.name == plan.baseline), None)
    if named is not None and named.runs:
        return named
    first = next((arm for arm in arms if arm.runs), None)
    if first is not None:
        why = f"the baseline {named.name} has no finished run" if named else "no baseline is named"
        problems.append(f"Arms are compared with {first.name}: {why}.")
    return first


def shared_metric(arms: Sequence[Arm], baseline: Arm | None) -> str:
    """The first accuracy, in the order of their honesty, that the baseline and another arm have; else that
    any arm has."""
    known = {metric: [arm for arm in arms if arm.shares(metric)] for metric in TEST_ACCURACIES}
    shared = [metric for metric, having in known.items() if baseline in having and len(having) > 1]
    return next(iter(shared), next((metric for metric, having in known.items() if having), SELECTED))


def _other_conditions(plan: StudyPlan | None) -> str:
    overrides = plan.overrides if plan and plan.references else {}
    changed = [
        f"{knob}={canonical(value)}" for knob, value in overrides.items() if not _comparable(knob, value)
    ]
    return f"trained with {' '.join(changed)}" if changed else ""


def _comparable(knob: str, value: object) -> bool:
    """Whether published numbers can be compared with where this was put over a study's own."""
    match knob:
        case "recipe":
            return str(value).startswith("paper")
        case "data":
            return value != "digits"  # a path may be Imagenette's
        case _:
            return knob in _SAME_CONDITIONS


# -- what is odd ---------------------------------------------------------------------------------------


def complain(arms: Sequence[Arm], plan: StudyPlan | None, problems: list[str]) -> None:
    """Add all that is odd about the runs that count."""
    complaints: dict[str, list[str]] = {}
    for run in (run for arm in arms for run in arm.runs):
        for wrong in run.complaints():
            complaints.setdefault(wrong, []).append(_called(run))
    for wrong, names in complaints.items():
        problems.append(f"{_some(names)}: {wrong}.")
    for arm in arms if plan and plan.arms else ():
        planned = (None, *plan.seeds_of(arm.name)) if plan else ()
        unplanned = [str(run.seed) for run in arm.runs if run.seed not in planned]
        if unplanned:
            problems.append(
                f"{arm.name} has runs of seeds that are not planned, which count: "
                f"{_some(unplanned)}. Adding seeds until a difference shows would find one where there is "
                "none."
            )
    for arm in arms:
        if differing := _differing_knobs(arm):
            problems.append(f"The runs of {arm.name} differ in more than their seed: {', '.join(differing)}.")
    runs = [run for arm in arms for run in arm.runs]
    for tag, words in {
        "commit": "Runs are of {} commits of the code: {}.",
        "device": "Times and speeds are of {} devices: {}.",
        "selection": "Epochs were selected in {} ways: {}.",
    }.items():
        values = Counter(run.tags[tag] for run in runs if run.tags.get(tag))
        if len(values) > 1:
            listed = (
                f"{value[:12] if tag == 'commit' else value} ({n})" for value, n in values.most_common(4)
            )
            problems.append(words.format(len(values), ", ".join(listed)))
    dirty = sum(run.tags.get("commit_dirty") == "true" for run in runs)
    if dirty:
        problems.append(f"{dirty} of {len(runs)} runs are of code with uncommitted changes.")


def _differing_knobs(arm: Arm) -> list[str]:
    differing = []
    for knob in KNOBS:
        values = {in_short(run.params[knob]) for run in arm.runs if knob in run.params}
        if knob == "data":  # may lie elsewhere on each machine; their digest is compared
            values = {PurePath(value).name for value in values}
        if len(values) > 1 and knob != "seed" and knob not in OPERATIONAL:
            differing.append(f"{knob} ({', '.join(sorted(values))})")
    return differing


def in_short(text: str) -> str:
    """`5e-4` and `0.0005` are one value: under `mlflow run` a param is as it was typed."""
    value = number(text)
    return text if value is None else f"{value:g}"


def _called(run: TrackedRun) -> str:
    return f"run {run.run_id} ({run.arm or run.name}, {_seed(run.seed)})"


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_MOST])}{f' and {len(names) - _MOST} more' * (len(names) > _MOST)}"


def _first(runs: Sequence[TrackedRun], problems: list[str], words: str) -> Sequence[TrackedRun]:
    """Those to be named one by one; how many more there are goes into the problems."""
    if len(runs) > _MOST:
        problems.append(f"{len(runs) - _MOST} {words}.")
    return runs[:_MOST]
