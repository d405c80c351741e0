"""What must hold before a study's first training: the data fits every cell, and what the database holds under
its name is the same study. Each refusal is one line, before anything is made or changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imagenette.config import OPERATIONAL, Config
from imagenette.errors import InputError
from imagenette.study.crew import Share
from imagenette.study.definition import Definition
from imagenette.study.queue import Row, StudyRecord
from imagenette.training.readiness import check_device, check_fit, process_count, stored_side


def check_data(definition: Definition, shares: Sequence[Share]) -> dict[str, str]:
    """Decode what the cells train on, once; `data` -> digest. InputError if a cell does not fit it. What
    needs no data to be refused was refused when the file was read."""
    from imagenette.data import Dataset, open_dataset
    from imagenette.data.plan import split_positions

    opened: dict[tuple[str, int], Dataset] = {}
    for config in definition.configs():
        key = config.data, stored_side(config)
        if key not in opened:
            opened[key] = open_dataset(config.data, side=key[1], bad_pictures=config.bad_pictures)
        if definition.split == "holdout":
            labels = opened[key].train.labels
            _, held = split_positions(labels, holdout=config.holdout, limit=0)
            if not len(held):
                raise InputError(
                    f"objective={definition.objective}: holdout={config.holdout} keeps none of the "
                    f"{len(labels)} training images of data={config.data}: must be larger"
                )
        for share in shares:
            processes = process_count(config, gpus=share.processes)
            check_device(config, processes, gpus=len(share.gpus))
            check_fit(config, opened[key], processes)
    return {data: dataset.digest for (data, _), dataset in opened.items()}


def check_same(definition: Definition, rows: Sequence[Row]) -> None:
    """InputError where the database holds this study with other cells. New cells may be added."""
    cells = {row.cell: row for row in planned(definition)}
    for row in rows:
        now = cells.get(row.cell)
        if now is None:
            raise _other(definition, f"with a cell that is not asked for any more: {row.cell}")
        if now.config is not None and row.config is not None:
            theirs, ours = (Config.model_validate(config) for config in (row.config, now.config))
            if theirs.digest() != ours.digest():
                old, new = theirs.params(), ours.params()
                name = next(knob for knob in old if old[knob] != new[knob])
                raise _other(definition, f"with {name}={old[name]} (not {new[name]})")


def check_facts(definition: Definition, record: StudyRecord) -> None:
    """InputError where it is there with another objective, or searches otherwise."""
    for name, ours in facts(definition).items():
        theirs = record.facts.get(name)
        if ours != theirs:
            raise _other(definition, f"with {name}={theirs} (not {ours})")


def _other(definition: Definition, what: str) -> InputError:
    return InputError(
        f"study {definition.name} is already in this storage {what}: choose another name with --label, or "
        "another storage"
    )


def facts(definition: Definition) -> dict[str, Any]:
    """What all drivers of a study must agree on beside its cells. A search has its cells' configs only once
    they are drawn, so its base counts too; more trials may be asked for."""
    search = definition.search
    base = {knob: value for knob, value in definition.base.items() if knob not in OPERATIONAL}
    return {
        "objective": definition.objective,
        "base": base if search else None,
        "search": search.model_dump(mode="json", exclude={"trials"}) if search else None,
    }


def planned(definition: Definition) -> list[Row]:
    """A row for each cell; a search's are filled in when the sampler is asked."""
    if definition.search:
        names = [f"trial {number}" for number in range(1, definition.search.trials + 1)]
        return [Row(cell=name, arm=name, position=i, values={}) for i, name in enumerate(names)]
    return [
        Row(cell=cell.name, arm=cell.arm, position=i, values=cell.values, config=cell.config.model_dump())
        for i, cell in enumerate(definition.cells)
    ]
