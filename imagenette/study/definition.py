"""A study as its TOML file asks for it: the file checked whole, then every cell a whole config. Knows TOML
and knobs; knows nothing of Optuna, MLflow, databases or torch.

    name title seeds objective baseline    [base] knobs that every cell shares
    one of [grid] knob -> values, [[arms]] tables of coupled knobs, [search] trials sampler pruner seed space
    [smoke] the same, tiny: knobs over [base]'s, and its own seeds, grid, arms, baseline, trials or space
    [[reference]] an arm's knobs and what was published for it; reference_source
    and reference_images, the test images behind each published accuracy

Both forms are checked whenever either is loaded: a broken [smoke] does not wait until somebody needs it.
"""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imagenette.config import Config, canonical, resolve
from imagenette.errors import InputError
from imagenette.study.schema import (
    OBJECTIVES,
    PLAIN,
    PLAIN_WORDS,
    Choices,
    File,
    Knobs,
    Range,
    Search,
    Smoke,
    check_varies,
    checked_search,
    figure,
    knob_value,
    knob_values,
    near,
    parse,
    shown,
)
from imagenette.tracking.study_plan import StudyPlan

__all__ = ["OBJECTIVES", "Cell", "Choices", "Definition", "Range", "Search", "load", "shipped"]

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training of a study, complete."""

    name: str
    """`batch_size=16 seed=1`, unique in the study."""
    arm: str
    """`batch_size=16`; runs of one arm differ in their seed only."""
    values: dict[str, Any]
    """What varies, seed included: `{"batch_size": 16, "seed": 1}`."""
    config: Config


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A study, checked: every cell can be trained as it stands."""

    name: str
    title: str
    objective: str
    """One of OBJECTIVES; always maximized."""
    seeds: tuple[int, ...]
    base: dict[str, Any]
    """Knobs every cell shares, overrides included; the recipe fills in the others."""
    factors: dict[str, tuple[Any, ...]]
    """Knob -> its values in order, without the seed; empty for a search."""
    arms: tuple[str, ...]
    """Names in order; empty for a search."""
    cells: tuple[Cell, ...]
    """Arms x seeds, the seed varying fastest; empty for a search."""
    search: Search | None
    baseline: str | None
    """The arm that the others are compared with."""
    references: dict[str, dict[str, float]]
    """Arm -> what was published for it: `{"best/test_accuracy": 0.9248, "reference/size_mb": 45.0}`;
    accuracies are shares in [0, 1]."""
    reference_source: str | None = None
    """Where that was published, and how it was measured."""
    reference_images: int | None = None
    """Test images behind each published accuracy."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Knobs of `base` that were not the file's own choice."""
    source: str = ""
    """The file's text."""

    @property
    def split(self) -> str:
        """`test` or `holdout`, what the objective reads; its metric per epoch is `{split}/accuracy`."""
        return self.objective.split("/")[1].removesuffix("_accuracy")

    @property
    def reads_test(self) -> bool:
        """Whether the test set decides: such a result flatters, and must be shown as what it is."""
        return self.split == "test"

    def outline(self) -> StudyPlan:
        """What the study's parent run carries of it."""
        varied = {cell.arm: {k: v for k, v in cell.values.items() if k != "seed"} for cell in self.cells}
        return StudyPlan(
            name=self.name,
            title=self.title,
            objective=self.objective,
            seeds=self.seeds,
            arms=varied,
            baseline=self.baseline,
            base=self.base,
            overrides=self.overrides,
            references=self.references,
            reference_source=self.reference_source,
            reference_images=self.reference_images,
        )

    def configure(self, values: Mapping[str, Any]) -> Config:
        """The whole config of these values; with the study's first seed unless they name one. InputError."""
        return resolve(self.base | {"seed": self.seeds[0]} | dict(values))


def shipped() -> list[str]:
    """Names of the studies that come with the project."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def load(
    name: str, *, overrides: Mapping[str, str] = {}, smoke: bool = False, label: str | None = None
) -> Definition:
    """A shipped study by its name, or any by the path of its TOML file.

    overrides: knobs as text, over those of [base] and [smoke]; smoke: the tiny form; label: appended to
    the study's name. InputError: one line that names the file, the key, the value and what is allowed.
    """
    if label is not None and (label == "smoke" or not PLAIN.fullmatch(label)):
        raise InputError(f"label={label}: must be {PLAIN_WORDS}")
    path, where = _find(name)
    with _named(where):
        source = path.read_text("utf-8")
        file = parse(source)
        cuts = {False: Smoke()} | ({True: file.smoke} if file.smoke else {})
        forms = {tiny: _define(file, cut) for tiny, cut in cuts.items()}
        if smoke not in forms:
            raise InputError("smoke: missing: nothing says how to make this study tiny")
    fixed = {knob: _override(forms[smoke], knob, text) for knob, text in overrides.items()}
    with _named(where):
        asked = _define(file, cuts[smoke], fixed)
    suffix = "-smoke" * smoke + (f"-{label}" if label else "")
    published = {} if smoke else asked.references  # of other data: nothing to stand beside
    return replace(asked, name=file.name + suffix, source=source, references=published)


def _folder() -> Path:
    """Inside the package as a wheel installs it; else beside it, in the repository."""
    inside = PACKAGE / "studies"
    return inside if inside.is_dir() else PACKAGE.parent / "studies"


def _find(name: str) -> tuple[Path, str]:
    """The file, and what messages call it."""
    if name.endswith(".toml") or os.sep in name:
        return Path(name), name
    names = shipped()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(
            f"unknown study {name}: {hint}there are {', '.join(names)}, or the path of a TOML file"
        )
    return _folder() / f"{name}.toml", f"studies/{name}.toml"


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Errors inside name the file, on one line."""
    try:
        yield
    except (InputError, OSError, UnicodeDecodeError) as error:
        wrong = error.strerror if isinstance(error, OSError) else error
        raise InputError(" ".join(f"{where}: {wrong}".split())) from None


def _override(definition: Definition, knob: str, text: str) -> Any:
    if knob == "seed":
        raise InputError(f"seed={text}: the study has seeds of its own: {shown(list(definition.seeds))}")
    if knob in (definition.search.space if definition.search else definition.factors):
        raise InputError(f"{knob}={text}: the study varies {knob}")
    return getattr(resolve({knob: text}), knob)


def _define(file: File, smoke: Smoke, overrides: Mapping[str, Any] = {}) -> Definition:
    """One form of the study; an empty Smoke leaves the full one."""
    _check_kind(file, smoke)
    base = {knob: knob_value(f"base.{knob}", knob, value) for knob, value in file.base.items()}
    base |= {knob: knob_value(f"smoke.{knob}", knob, value) for knob, value in smoke.knobs.items()}
    base |= overrides
    seeds = tuple(smoke.seeds or file.seeds)
    arms: list[Knobs] = []
    search = None
    if file.search:
        where, space = ("smoke.space", smoke.space) if smoke.space else ("search.space", file.search.space)
        search = checked_search(file.search, where, space, smoke.trials or file.search.trials)
        points = search.extremes()
    else:
        where, arms = _arms(file, smoke)
        points = arms
    for knob in points[0]:
        if knob in smoke.knobs:
            raise InputError(f"smoke.{knob}: the study varies {knob}")
        if knob in base:
            raise InputError(f"{where}.{knob}: base has {knob} too: a knob is fixed or varies")
    for values in points:
        _check_objective(file.objective, resolve(base | values))
    return Definition(
        name=file.name,
        title=file.title,
        objective=file.objective,
        seeds=seeds,
        base=base,
        factors={knob: tuple(dict.fromkeys(values[knob] for values in arms)) for knob in points[0] if arms},
        arms=tuple(map(_arm_name, arms)),
        cells=_cells(where, arms, seeds, base),
        search=search,
        baseline=_baseline(file, smoke, arms),
        references=_references(file, arms),
        reference_source=file.reference_source,
        reference_images=file.reference_images,
        overrides=dict(overrides),
    )


def _check_kind(file: File, smoke: Smoke) -> None:
    """InputError unless the study varies in one way, and [smoke] in the same."""
    kinds = [kind for kind in ("grid", "arms", "search") if getattr(file, kind) is not None]
    if len(kinds) != 1:
        raise InputError(f"{' and '.join(kinds) or 'grid'}: must be one of [grid], [[arms]] and [search]")
    if smoke.grid is not None and smoke.arms is not None:
        raise InputError("smoke.grid and smoke.arms: must be one of the two")
    for key in ("grid", "arms", "baseline") if file.search else ("trials", "space"):
        if getattr(smoke, key) is not None:
            raise InputError(f"smoke.{key}: the study is {'a' if file.search else 'no'} [search]")
    if file.search and (file.baseline is not None or file.reference):
        raise InputError(f"{'reference' if file.reference else 'baseline'}: a [search] has no arms")
    for key, seeds in {"seeds": file.seeds, "smoke.seeds": smoke.seeds or []}.items():
        if file.search and len(seeds) > 1:
            raise InputError(f"{key}={shown(seeds)}: must be one seed, the study is a [search]")


def _check_objective(objective: str, config: Config) -> None:
    if "holdout" in objective and not config.holdout:
        tests = " or ".join(other for other in OBJECTIVES if "holdout" not in other)
        raise InputError(
            f"objective={objective}: nothing is held out with holdout={config.holdout} "
            f"(recipe={config.recipe}): must be {tests}, or holdout > 0"
        )


def _arms(file: File, smoke: Smoke) -> tuple[str, list[Knobs]]:
    """Where they are written, and each one's knobs in their own types."""
    form, prefix = (file, "") if smoke.grid is None and smoke.arms is None else (smoke, "smoke.")
    where = f"{prefix}arms" if form.grid is None else f"{prefix}grid"
    first = form.grid if form.grid is not None else (form.arms or [{}])[0]
    if not first:
        raise InputError(f"{where}: must name at least one knob")
    if form.grid is None:
        tables = form.arms or []
        return where, [_arm(f"{where}[{i}]", table, first) for i, table in enumerate(tables, start=1)]
    lists = [knob_values(f"{where}.{knob}", knob, values) for knob, values in form.grid.items()]
    return where, [dict(zip(first, values, strict=True)) for values in itertools.product(*lists)]


def _arm(key: str, table: Knobs, knobs: Iterable[str]) -> Knobs:
    """The values of a table that names just these knobs, in this order."""
    for knob in [*table, *knobs]:
        check_varies(f"{key}.{knob}", knob)
        if knob not in knobs or knob not in table:
            raise InputError(f"{key}.{knob}: an arm of this study must name {', '.join(knobs)} and no more")
    return {knob: knob_value(f"{key}.{knob}", knob, table[knob]) for knob in knobs}


def _arm_among(arms: list[Knobs], key: str, table: Knobs) -> str:
    name, names = _arm_name(_arm(key, table, arms[0])), [_arm_name(arm) for arm in arms]
    if name not in names:
        raise InputError(f"{key}: {name} is no arm of the study: {near(name, names, 'arms')}")
    return name


def _arm_name(values: Knobs) -> str:
    return " ".join(f"{knob}={canonical(value)}" for knob, value in values.items())


def _cells(where: str, arms: list[Knobs], seeds: Sequence[int], base: Knobs) -> tuple[Cell, ...]:
    cells: dict[str, Cell] = {}
    for arm, seed in itertools.product(arms, seeds):
        values = arm | {"seed": seed}
        cell = Cell(name=_arm_name(values), arm=_arm_name(arm), values=values, config=resolve(base | values))
        twin = cells.setdefault(cell.config.digest(), cell)
        if twin is not cell:
            raise InputError(f"{where}: {twin.name} and {cell.name} are the same experiment")
    return tuple(cells.values())


def _baseline(file: File, smoke: Smoke, arms: list[Knobs]) -> str | None:
    if smoke.baseline is not None:
        return _arm_among(arms, "smoke.baseline", smoke.baseline)
    cut = smoke.grid is not None or smoke.arms is not None
    key = "smoke.baseline" if cut else "baseline"  # a cut that lost the baseline has to name another
    return None if file.baseline is None else _arm_among(arms, key, file.baseline)


def _references(file: File, arms: list[Knobs]) -> dict[str, dict[str, float]]:
    """Those of these arms. InputError where one belongs to no arm of the full study."""
    references: dict[str, dict[str, float]] = {}
    for i, table in enumerate(file.reference, start=1):
        key = f"reference[{i}]"
        knobs = {name: value for name, value in table.items() if "/" not in name}
        arm = _arm_among(_arms(file, Smoke())[1], key, knobs)
        if arm in references:
            raise InputError(f"{key}: {arm} is there twice")
        references[arm] = {n: figure(f"{key}.{n}", n, value) for n, value in table.items() if "/" in n}
        if not references[arm]:
            raise InputError(f"{key}: must have a figure, such as best/test_accuracy = 0.9248")
    return {arm: figures for arm, figures in references.items() if arm in map(_arm_name, arms)}
