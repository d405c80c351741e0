"""A study as its TOML file asks for it: the file checked whole, then every cell a whole config that can be
trained. Knows files and knobs; knows nothing of Optuna, MLflow or databases, nor of torch, but for a network
of timm's.

    name title seeds objective    [base] knobs that every cell shares
    baseline, an arm, and baseline_seeds, all of its own; margin and target, which the report reads
    one of [grid] knob -> values, [[arms]] tables of coupled knobs, [search] trials sampler pruner seed space
    [small] the same question at a scale that a computer without a GPU answers, and [smoke], tiny: knobs over
    [base]'s, and their own seeds, grid, arms, baseline, baseline_seeds (else as its seeds), trials or space
    [[reference]] an arm's knobs and what was published for it; reference_source
    and reference_images, the test images behind each published accuracy

All forms are checked whenever one is loaded: a broken [smoke] does not wait until somebody needs it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from imagenette.config import KNOBS, Config, resolve
from imagenette.errors import InputError
from imagenette.files import PACKAGE
from imagenette.results import OBJECTIVES, split_of
from imagenette.study.cells import Cell, arm_name, arms_of, baseline_of, cells_of, references_of, seeds_of
from imagenette.study.schema import (
    PLAIN,
    PLAIN_WORDS,
    Cut,
    File,
    Knobs,
    Search,
    checked_search,
    knob_value,
    near,
    parse,
    plugin_first,
    shown,
)
from imagenette.tracking.study_plan import StudyPlan
from imagenette.training.readiness import check_batches, check_config

_MADE = {"small": "smaller", "smoke": "tiny"}
Form = Literal["full", "small", "smoke"]
"""Which of a file's tables a study is made of: all but the other two, or these over them."""


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
    """Each arm with its seeds, the seed varying fastest; empty for a search."""
    search: Search | None
    baseline: str | None
    """The arm that the others are compared with."""
    baseline_seeds: tuple[int, ...]
    """All of the baseline's; empty where it has no others than `seeds`."""
    references: dict[str, dict[str, float]]
    """Arm -> what was published for it: `{"best/test_accuracy": 0.9248, "reference/size_mb": 45.0}`;
    accuracies are shares in [0, 1]."""
    reference_source: str | None = None
    """Where that was published, and how it was measured."""
    reference_images: int | None = None
    """Test images behind each published accuracy."""
    margin: float | None = None
    """Share in (0, 0.5): differences smaller than this are practically none."""
    target: float | None = None
    """Test accuracy in (0, 1) that an arm's epochs are counted to."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Knobs of `base` that a form or the command line put over the full form's own."""
    source: str = ""
    """The file's text."""

    @property
    def split(self) -> str:
        """`test` or `holdout`, what the objective reads; its metric per epoch is `{split}/accuracy`."""
        return split_of(self.objective)

    @property
    def reads_test(self) -> bool:
        """Whether the test set decides: such a result flatters, and must be shown as what it is."""
        return self.split == "test"

    def outline(self) -> StudyPlan:
        """What the study's parent run carries of it."""
        varied = {cell.arm: {k: v for k, v in cell.values.items() if k != "seed"} for cell in self.cells}
        shared = {name: getattr(self, name) for name in StudyPlan.model_fields if name != "arms"}
        return StudyPlan(arms=varied, **shared)

    def configs(self) -> list[Config]:
        """What is to be trained: every cell's config; of a search, those at both ends of each range and at
        every choice."""
        if self.search:
            return [self.configure(values) for values in self.search.extremes()]
        return [cell.config for cell in self.cells]

    def configure(self, values: Mapping[str, Any]) -> Config:
        """The whole config of these values; with the study's first seed unless they name one. InputError."""
        return resolve(self.base | {"seed": self.seeds[0]} | dict(values))


def shipped() -> list[str]:
    """Names of the studies that come with the project."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def load(
    name: str, *, overrides: Mapping[str, str] = {}, form: Form = "full", label: str | None = None
) -> Definition:
    """A shipped study by its name, or any by the path of its TOML file.

    overrides: knobs as text, over those of [base] and of the form; form and label are appended to the study's
    name. InputError: one line that names the file, the key, the value and what is allowed.
    """
    path, where = _find(name)
    with _named(where):
        source = path.read_text("utf-8")
        file = parse(source)
        cuts: dict[str, Cut | None] = {"full": Cut(), "small": file.small, "smoke": file.smoke}
        forms = {each: _define(file, each, cut) for each, cut in cuts.items() if cut}
        if form not in forms:
            raise InputError(f"{form}: missing: nothing says how to make this study {_MADE[form]}")
    if label is not None and (label in forms or not PLAIN.fullmatch(label)):
        raise InputError(f"label={label}: must be {PLAIN_WORDS}, and no form of the study")
    fixed = {knob: _override(forms[form], knob, text) for knob, text in plugin_first(overrides)}
    with _named(where):
        definition = _define(file, form, cuts[form] or Cut(), fixed)
    suffix = f"-{form}" * (form != "full") + (f"-{label}" if label else "")
    published = {} if form == "smoke" else definition.references  # of other data: nothing to stand beside
    return replace(definition, name=file.name + suffix, source=source, references=published)


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
    if knob not in KNOBS:
        raise InputError(f"unknown knob {knob}={text}: {near(knob, KNOBS, 'knobs')}")
    return knob_value(knob, knob, text)


def _define(file: File, form: str, cut: Cut, overrides: Mapping[str, Any] = {}) -> Definition:
    """One form of the study; an empty Cut leaves the full one."""
    _check_kind(file, form, cut)
    knobs = cut.knobs(form)
    base = {knob: knob_value(f"base.{knob}", knob, value) for knob, value in plugin_first(file.base)}
    formed = {knob: knob_value(f"{form}.{knob}", knob, value) for knob, value in plugin_first(knobs)}
    over = formed | dict(overrides)
    base |= over
    seeds = tuple(cut.seeds or file.seeds)
    arms: list[Knobs] = []
    search = None
    if file.search:
        where, space = (f"{form}.space", cut.space) if cut.space else ("search.space", file.search.space)
        search = checked_search(file.search, where, space, cut.trials or file.search.trials)
        points = search.extremes()
    else:
        where, arms = arms_of(file, form, cut)
        points = arms
    for knob in points[0]:
        if knob in knobs:
            raise InputError(f"{form}.{knob}: the study varies {knob}")
        if knob in base:
            raise InputError(f"{where}.{knob}: base has {knob} too: a knob is fixed or varies")
    _check_configs(file.objective, [resolve(base | values) for values in points])
    baseline = baseline_of(file, form, cut, arms)
    seeds_of_arms = seeds_of(file, form, cut, arms, baseline)
    own = tuple(seeds_of_arms.get(baseline or "", ()))
    return Definition(
        name=file.name,
        title=file.title,
        objective=file.objective,
        seeds=seeds,
        base=base,
        factors={knob: tuple(dict.fromkeys(values[knob] for values in arms)) for knob in points[0] if arms},
        arms=tuple(map(arm_name, arms)),
        cells=cells_of(where, arms, seeds_of_arms, base),
        search=search,
        baseline=baseline,
        baseline_seeds=own if own != seeds else (),
        references=references_of(file, arms),
        reference_source=file.reference_source,
        reference_images=file.reference_images,
        margin=file.margin,
        target=file.target,
        overrides=over,
    )


def _check_kind(file: File, form: str, cut: Cut) -> None:
    """InputError unless the study varies in one way, and this form of it in the same."""
    kinds = [kind for kind in ("grid", "arms", "search") if getattr(file, kind) is not None]
    if len(kinds) != 1:
        raise InputError(f"{' and '.join(kinds) or 'grid'}: must be one of [grid], [[arms]] and [search]")
    if cut.grid is not None and cut.arms is not None:
        raise InputError(f"{form}.grid and {form}.arms: must be one of the two")
    for key in ("grid", "arms", "baseline", "baseline_seeds") if file.search else ("trials", "space"):
        if getattr(cut, key) is not None:
            raise InputError(f"{form}.{key}: the study is {'a' if file.search else 'no'} [search]")
    for key in ("baseline", "baseline_seeds", "margin", "reference"):
        if file.search and getattr(file, key) not in (None, []):
            raise InputError(f"{key}: a [search] has no arms")
    for key, seeds in {"seeds": file.seeds, f"{form}.seeds": cut.seeds or []}.items():
        if file.search and len(seeds) > 1:
            raise InputError(f"{key}={shown(seeds)}: must be one seed, the study is a [search]")


def _check_configs(objective: str, configs: Iterable[Config]) -> None:
    """InputError where some config could not be trained, whatever its data, or would give no objective."""
    networks = {}
    for config in configs:
        if split_of(objective) == "holdout" and not config.holdout:
            tests = " or ".join(other for other in OBJECTIVES if split_of(other) == "test")
            raise InputError(
                f"objective={objective}: nothing is held out with holdout={config.holdout} "
                f"(recipe={config.recipe}): must be {tests}, or holdout > 0"
            )
        processes = 1 if config.nproc == "auto" else config.nproc
        check_batches(config, images=config.batch_size, world_size=processes)
        sizes = config.start_size, config.size, config.test_size
        networks[config.architecture, config.activation, sizes] = config
    for config in networks.values():
        check_config(config)
