"""More epochs for a run that finished: a new run that begins where that one ended.

It computes what a run of that many epochs from the start would have, bit for bit. So it is for configs whose
epochs do not depend on how many there are, and those runs keep their last state.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagenette.config import OPERATIONAL, Config, resolve
from imagenette.errors import InputError, shown
from imagenette.results import Status
from imagenette.training.job import Result, read_config

CHECKPOINTS = "checkpoints"
_KEPT = ("last.pt", "selected.pt")


def why_not(config: Config) -> str:
    """Why no epochs can be added to a run of this config; empty where they can."""
    if config.schedule != "constant":
        return (
            f"schedule={config.schedule} is laid over all epochs of a run; only constant leaves room for more"
        )
    if config.start_size not in (0, config.size):
        return f"start_size={config.start_size} grows over all epochs of a run; only start_size=0 leaves room"
    return ""


def extend(finished: Path, given: Mapping[str, Any], output: Path, *, first: bool = True) -> Config:
    """Put the finished run's last state into the output folder of the run that goes on from it, unless that
    has begun; returns its config. given: epochs, and how it runs. first: whether this process writes for all
    that train together. InputError where that cannot be."""
    config = read_config(finished)
    where = f"extend={shown(finished)}"
    if others := [name for name in given if name != "epochs" and name not in OPERATIONAL]:
        raise InputError(
            f"{where}: {others[0]}={given[others[0]]} would make it another run; epochs alone may grow"
        )
    longer = resolve(config.model_dump() | dict(given))
    if longer.epochs <= config.epochs:
        raise InputError(f"{where}: it has {config.epochs} epochs: --epochs must be more")
    result = Result.read(finished)
    if result is None or result.status is not Status.FINISHED:
        how = result.status if result else "still without a result"
        raise InputError(f"{where}: it is {how}; only a finished run can be extended")
    if why := why_not(config):
        raise InputError(f"{where}: {why}; train anew with --epochs {longer.epochs}")
    source, target = finished / CHECKPOINTS, output / CHECKPOINTS
    if not all((source / name).is_file() for name in _KEPT):
        raise InputError(f"{where}: its last state is gone (`imagenette clean`, or an earlier version)")
    if first and not any(target.glob("*.pt")):
        beside = output / f".{CHECKPOINTS}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name in _KEPT:
            shutil.copy(source / name, beside / name)
        shutil.rmtree(target, ignore_errors=True)
        beside.replace(target)
    return longer
