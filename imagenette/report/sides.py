"""What is compared: a run, a registered version or a study's arm, from what a person calls it. Refuses what
is not finished, could be several, or is on other data. Knows no MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from imagenette.errors import InputError
from imagenette.report.assemble import assemble
from imagenette.report.reader import Reader
from imagenette.report.runs import TrackedRun
from imagenette.report.study import Arm, Study
from imagenette.tracking.address import CHAMPION, NAME, PREVIOUS, Address

FORMS = "a run's id (or its first six characters) or name, champion, NAME@ALIAS, NAME/VERSION, STUDY:ARM"
_LOOKED_AT, _NAMED = 200, 8  # runs whose names are compared with a wrong one; names that a message has


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """One of the two."""

    arm: Arm
    """Its runs, under the name that sentences have for it; a run, or a version's run, is an arm of one."""
    about: str
    """What it is, in words."""
    study: Study | None = None
    """Of which it is an arm."""

    @property
    def data_digest(self) -> str:
        return self.arm.runs[0].data_digest

    @property
    def called(self) -> str:
        return f"arm {self.arm.name}" if self.study else self.arm.name


def find_sides(reader: Reader, first: str, second: str) -> tuple[Side, Side]:
    """InputError, one line, if either is not there, is ambiguous, is not finished, or if they share a run or
    are on different data."""
    studies: dict[str, Study] = {}
    one, other = (_find(reader, text, studies) for text in (first, second))
    if one.study and other.study and one.study is not other.study:
        one, other = _with_study(one), _with_study(other)
    shared = _trained(one) & _trained(other)
    if shared:
        raise InputError(
            f"{first} and {second} are both run {min(shared)}"
            if len(one.arm.runs) == len(other.arm.runs) == 1
            else f"{first} and {second} share run {min(shared)}: it would be compared with itself"
        )
    if one.data_digest != other.data_digest:
        on, than = (side.data_digest[:8] or "unknown" for side in (one, other))
        raise InputError(
            f"{one.called} is on data {on}, {other.called} on {than}: their accuracies are of other images"
        )
    return one, other


def _find(reader: Reader, text: str, studies: dict[str, Study]) -> Side:
    text = text.removeprefix("models:/")
    if text in (CHAMPION, PREVIOUS):
        text = f"{NAME}@{text}"
    if run := reader.run(text):
        if run.tags.get("role") == "study":
            return _find_arm(reader, f"{run.tags.get('study')}:", studies)
        return _of_run(run, f"run {run.run_id[:8]}", f"run {run.run_id}: {run.name}")
    if ":" in text:
        return _find_arm(reader, text, studies)
    if "@" in text or "/" in text:
        address = Address.parse(text)
        version, run = reader.version(address)
        alias = f"version {version}, " if address.alias else ""
        return _of_run(run, str(address), f"{alias}run {run.run_id}: {run.name}")
    names, known = reader.newest(_LOOKED_AT), reader.studies()
    near = get_close_matches(text, [*names, *known, CHAMPION, PREVIOUS], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    newest = f"; the newest runs are {', '.join(names[:_NAMED])}" if names else ""
    raise InputError(f"{text}: no such run {reader.where}; {hint}allowed are {FORMS}{newest}")


def _of_run(run: TrackedRun, name: str, about: str) -> Side:
    if not run.finished:
        raise InputError(f"run {run.run_id} ({run.name}) cannot be compared: {run.state}")
    return Side(arm=Arm(name=name, runs=(run,)), about=about)


def _find_arm(reader: Reader, text: str, studies: dict[str, Study]) -> Side:
    names = [name for name in reader.studies() if text.startswith(f"{name}:")]
    name = max(names, key=len, default=text.partition(":")[0])
    wanted = text[len(name) + 1 :]
    if name not in studies:
        tracked = reader.study(name)
        studies[name] = assemble(name, tracked.plan, tracked.runs, status=tracked.status)
    study = studies[name]
    arm = next((arm for arm in study.arms if _values(arm.name) == _values(wanted)), None)
    if arm is None:
        arms = [arm.name for arm in study.arms]
        near = get_close_matches(wanted, arms, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        more = f" and {len(arms) - _NAMED} more" if len(arms) > _NAMED else ""
        listed = ", ".join(arms[:_NAMED]) or "none yet"
        lack = (
            f"study {name} has no arm {wanted!r}" if wanted else f"{name} is a study: name an arm, {name}:ARM"
        )
        raise InputError(f"{lack}; {hint}there are {listed}{more}")
    if not arm.runs:
        why = f" ({'; '.join(arm.missing)})" if arm.missing else ""
        raise InputError(f"arm {arm.name} of study {name} has no finished run{why}")
    seeds = ", ".join(str(run.seed) for run in arm.runs)
    runs = f"{len(arm.runs)} runs, seeds {seeds}" if len(arm.runs) > 1 else f"1 run, seed {seeds}"
    return Side(arm=arm, about=f"of study {name}: {runs}", study=study)


def _values(arm: str) -> dict[str, float | str]:
    """What an arm's name says, numbers as numbers: `lr=1e-1` is `lr=0.1`."""
    values: dict[str, float | str] = {}
    for word in arm.split():
        knob, _, text = word.partition("=")
        try:
            values[knob] = float(text)
        except ValueError:
            values[knob] = text
    return values


def _with_study(side: Side) -> Side:
    """Under the study's name too, where the other is of another study."""
    assert side.study
    arm = Arm(name=f"{side.study.name}:{side.arm.name}", values=side.arm.values, runs=side.arm.runs)
    return Side(arm=arm, about=side.about, study=side.study)


def _trained(side: Side) -> set[str]:
    """Ids of the runs that were trained, where a study took them from another."""
    return {run.tags.get("reused_run", run.run_id) for run in side.arm.runs}
