"""A study's arms and cells, from the tables of its file: the product of a grid or the arms as written, each
with every seed, and what the baseline and the published figures name among them. Knows knobs alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imagenette.config import Config, canonical, resolve
from imagenette.errors import InputError
from imagenette.study.schema import (
    Cut,
    File,
    Knobs,
    check_varies,
    figure,
    knob_value,
    knob_values,
    near,
    shown,
)


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


def arms_of(file: File, form: str, cut: Cut) -> tuple[str, list[Knobs]]:
    """Where in the file this form's arms are written, and each one's knobs in their own types."""
    tables, prefix = (file, "") if cut.grid is None and cut.arms is None else (cut, f"{form}.")
    where = f"{prefix}arms" if tables.grid is None else f"{prefix}grid"
    first = tables.grid if tables.grid is not None else (tables.arms or [{}])[0]
    if not first:
        raise InputError(f"{where}: must name at least one knob")
    if tables.grid is None:
        return where, [_arm(f"{where}[{i}]", arm, first) for i, arm in enumerate(tables.arms or [], start=1)]
    lists = [knob_values(f"{where}.{knob}", knob, values) for knob, values in tables.grid.items()]
    return where, [dict(zip(first, values, strict=True)) for values in itertools.product(*lists)]


def _arm(key: str, table: Knobs, knobs: Iterable[str]) -> Knobs:
    """The values of a table that names just these knobs, in this order."""
    for knob in [*table, *knobs]:
        check_varies(f"{key}.{knob}", knob)
        if knob not in knobs or knob not in table:
            raise InputError(f"{key}.{knob}: an arm of this study must name {', '.join(knobs)} and no more")
    return {knob: knob_value(f"{key}.{knob}", knob, table[knob]) for knob in knobs}


def arm_among(arms: list[Knobs], key: str, table: Knobs) -> str:
    """The name of the arm that a table names. InputError if it is none of these arms."""
    name, names = arm_name(_arm(key, table, arms[0])), [arm_name(arm) for arm in arms]
    if name not in names:
        raise InputError(f"{key}: {name} is no arm of the study: {near(name, names, 'arms')}")
    return name


def arm_name(values: Knobs) -> str:
    return " ".join(f"{knob}={canonical(value)}" for knob, value in values.items())


def cells_of(
    where: str, arms: list[Knobs], seeds: Mapping[str, Sequence[int]], base: Knobs
) -> tuple[Cell, ...]:
    """Each arm with its seeds, the seed varying fastest. InputError where two cells would be the same
    experiment."""
    cells: dict[str, Cell] = {}
    for arm, seed in [(each, seed) for each in arms for seed in seeds[arm_name(each)]]:
        values = arm | {"seed": seed}
        cell = Cell(name=arm_name(values), arm=arm_name(arm), values=values, config=resolve(base | values))
        twin = cells.setdefault(cell.config.digest(), cell)
        if twin is not cell:
            raise InputError(f"{where}: {twin.name} and {cell.name} are the same experiment")
    return tuple(cells.values())


def baseline_of(file: File, form: str, cut: Cut, arms: list[Knobs]) -> str | None:
    """The arm that the others are compared with; None if none is named."""
    if cut.baseline is not None:
        return arm_among(arms, f"{form}.baseline", cut.baseline)
    own = cut.grid is not None or cut.arms is not None
    key = f"{form}.baseline" if own else "baseline"  # a cut that lost the baseline has to name another
    return None if file.baseline is None else arm_among(arms, key, file.baseline)


def seeds_of(
    file: File, form: str, cut: Cut, arms: list[Knobs], baseline: str | None
) -> dict[str, list[int]]:
    """Arm -> its seeds. The baseline may have more than the others, since it is in every comparison; theirs
    are among them, so that runs can be paired by seed. InputError."""
    seeds, of_form = cut.seeds or file.seeds, cut.baseline_seeds
    own = file.baseline_seeds if cut.seeds is None and of_form is None else of_form
    every = {arm_name(arm): seeds for arm in arms}
    if own is None:
        return every
    key = f"{f'{form}.' if of_form else ''}baseline_seeds={shown(own)}"
    if baseline is None:
        raise InputError(f"{key}: no baseline is named")
    if not set(seeds) <= set(own):
        raise InputError(f"{key}: must have all of seeds={shown(seeds)}")
    return every | {baseline: own}


def references_of(file: File, arms: list[Knobs]) -> dict[str, dict[str, float]]:
    """What was published for each of these arms. InputError where one belongs to no arm of the full study."""
    references: dict[str, dict[str, float]] = {}
    for i, table in enumerate(file.reference, start=1):
        key = f"reference[{i}]"
        knobs = {name: value for name, value in table.items() if "/" not in name}
        arm = arm_among(arms_of(file, "full", Cut())[1], key, knobs)
        if arm in references:
            raise InputError(f"{key}: {arm} is there twice")
        references[arm] = {n: figure(f"{key}.{n}", n, value) for n, value in table.items() if "/" in n}
        if not references[arm]:
            raise InputError(f"{key}: must have a figure, such as best/test_accuracy = 0.9248")
    return {arm: figures for arm, figures in references.items() if arm in map(arm_name, arms)}
