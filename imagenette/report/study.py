"""A study as a report shows it: arms, and a run for each of their seeds. Plain records."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from imagenette.report.runs import TrackedRun, number
from imagenette.results import BEST, SELECTED
from imagenette.stats import Interval, t_interval, wilson
from imagenette.tracking.study_plan import StudyPlan, Value


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An accuracy of an arm."""

    n: int
    """Runs."""
    mean: float | None = None
    sd: float | None = None
    """Over seeds (n - 1); None of one run."""
    interval: Interval | None = None
    """95 %: Student's t over seeds; of one run Wilson's, over test images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """Runs that differ in their seed only."""

    name: str
    values: Mapping[str, Value] = field(default_factory=dict)
    """What varies: knob -> value."""
    runs: tuple[TrackedRun, ...] = ()
    """Finished, one for each seed, in the order of the seeds."""
    missing: tuple[str, ...] = ()
    """Planned and not there: `seed 3: failed: loss not finite`."""
    reference: Mapping[str, float] = field(default_factory=dict)
    """What was published: `best/test_accuracy`, `reference/size_mb`, ..."""

    def shares(self, metric: str) -> list[float]:
        return [share for run in self.runs if (share := run.share(metric)) is not None]

    @property
    def step(self) -> float:
        """The share of one test image; 0 where their number is not known."""
        return 1 / max((run.test_images for run in self.runs if run.test_images), default=math.inf)

    def estimate(self, metric: str) -> Estimate:
        shares = self.shares(metric)
        if len(shares) > 1:
            found = t_interval(shares, step=self.step)
            interval = Interval(max(0.0, found.low), min(1.0, found.high))
            sd = statistics.stdev(shares)
            return Estimate(n=len(shares), mean=statistics.fmean(shares), sd=sd, interval=interval)
        if not shares:
            return Estimate(n=0)
        images = next(run.test_images for run in self.runs if run.share(metric) is not None)
        known = wilson(round(shares[0] * images), images) if images and "/test_" in metric else None
        return Estimate(n=1, mean=shares[0], interval=known)

    def mean(self, what: str) -> float | None:
        """Over the runs that know it: `seconds`, `images_per_second`, or a number in a tag."""
        found = [number(getattr(run, what, run.tags.get(what))) for run in self.runs]
        known = [value for value in found if value is not None]
        return statistics.fmean(known) if known else None

    @property
    def optimism(self) -> list[float]:
        """Of each run: best epoch on the test set minus the selected epoch."""
        pairs = ((run.share(BEST), run.share(SELECTED)) for run in self.runs)
        return [best - own for best, own in pairs if best is not None and own is not None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """All that a report of one study shows."""

    name: str
    title: str
    arms: tuple[Arm, ...]
    """In the study's order."""
    baseline: Arm | None
    search: bool = False
    objective: str = ""
    problems: tuple[str, ...] = ()
    """All that is odd, in words; the report stands in spite of it."""
    reference_source: str | None = None
    other_conditions: str = ""
    """Why published numbers are shown but not compared with; empty if they are."""
    metric: str = SELECTED
    """The accuracy that arms are compared by."""
    margin: float | None = None
    """Differences below it are practically none; None where the study names none."""
    target: float | None = None
    """A test accuracy, for the epochs and the time that it takes; None where the study names none."""
    status: str = ""
    """How the parent run stands; empty without one."""
    parent: str | None = None

    @property
    def runs(self) -> list[TrackedRun]:
        return [run for arm in self.arms for run in arm.runs]

    @property
    def planned(self) -> int:
        return sum(len(arm.runs) + len(arm.missing) for arm in self.arms)

    @property
    def chosen_on_test(self) -> bool:
        """Whether the selected epoch was selected on the test set in some run."""
        return any(run.tags.get("selection") == "test" for run in self.runs)

    @property
    def ranked(self) -> list[Arm]:
        """The arms as they are listed: of a search the best by its objective first, else in their order."""
        if not self.search:
            return list(self.arms)
        means = {arm.name: arm.estimate(self.objective or SELECTED).mean for arm in self.arms}
        return sorted(self.arms, key=lambda arm: (means[arm.name] is None, -(means[arm.name] or 0.0)))

    @property
    def knob(self) -> str | None:
        """What varies, where it is one knob."""
        knobs = list(self.factors())
        return knobs[0] if len(knobs) == 1 else None

    def short(self, arm: Arm) -> str:
        """An arm's name where `knob` stands beside it already."""
        name = str(arm.values[self.knob]) if self.knob and self.knob in arm.values else arm.name
        return f" {name}" if name.startswith("_") else name  # matplotlib leaves such names out of legends

    def ordered(self) -> dict[str, dict[str, int]]:
        """Knob -> arm -> its place, of knobs with three numbers or more: of the one that varies, or of those
        of a whole grid, where the others are the same at each place."""
        factors, known = self.factors(), [arm for arm in self.arms if arm.shares(self.metric)]
        complete = len(known) == math.prod(map(len, factors.values()))
        if self.search or not (complete or len(factors) == 1):
            return {}
        return {
            knob: {arm.name: sorted(map(float, values)).index(float(arm.values[knob])) for arm in known}
            for knob, values in factors.items()
            if len(values) > 2
            and not any(isinstance(value, bool | str) for value in values)
            and all(knob in arm.values for arm in known)
        }

    def factors(self) -> dict[str, list[Value]]:
        """Knob -> its values in order, of what varies."""
        knobs = dict.fromkeys(knob for arm in self.arms for knob in arm.values)
        return {k: list(dict.fromkeys(a.values[k] for a in self.arms if k in a.values)) for k in knobs}


def unreadable(name: str, why: str) -> Study:
    """A study of which nothing could be read."""
    return Study(name=name, title=name, arms=(), baseline=None, problems=(why,))


def published(plan: StudyPlan) -> Study | None:
    """What was published, as if each number were one run of ours; None if nothing was."""
    known = {arm: figures.get(BEST, math.nan) for arm, figures in plan.references.items()}
    arms = tuple(
        Arm(name=arm, values=values, runs=(_as_a_run(arm, known[arm], plan.reference_images),))
        for arm, values in plan.arms.items()
        if 0 <= known.get(arm, math.nan) <= 1
    )
    if len(arms) < 2 or not plan.reference_images:
        return None
    return Study(
        name=plan.name,
        title=f"{plan.title}: the published numbers",
        arms=arms,
        baseline=next((arm for arm in arms if arm.name == plan.baseline), arms[0]),
        reference_source=plan.reference_source,
        metric=BEST,
    )


def _as_a_run(arm: str, accuracy: float, images: int | None) -> TrackedRun:
    return TrackedRun(run_id="", name=arm, arm=arm, seed=None, claims={BEST: accuracy}, test_images=images)
