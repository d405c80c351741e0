"""Which process of a training this is, by the variables that torchrun sets. Imports no torch.

Such variables are also left over in shells and set by other launchers. What cannot be meant is refused in one
line: a training that waits for processes nobody started would wait for minutes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from imagenette.errors import InputError

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OTHERS = {"SLURM_STEP_NUM_TASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpirun"}
"""Variable with the number of processes -> the launcher that sets it, and none of torchrun's."""


@dataclass(frozen=True)
class Place:
    """One process among all that train together, on all hosts."""

    rank: int
    size: int
    local_rank: int
    """Among those of this host."""
    local_size: int

    @property
    def first(self) -> bool:
        return self.rank == 0


ALONE = Place(rank=0, size=1, local_rank=0, local_size=1)


def place() -> Place | None:
    """None where this process trains alone. InputError for variables that contradict each other."""
    if not os.environ.get("RANK"):
        return None
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing:
        raise InputError(
            f"RANK={os.environ['RANK']} is set, but not {', '.join(missing)}: torchrun sets all of them; to "
            "train in this process alone, unset RANK"
        )
    size, local_size = _number("WORLD_SIZE", least=1), _number("LOCAL_WORLD_SIZE", least=1)
    rank, local_rank = _number("RANK"), _number("LOCAL_RANK")
    if rank >= size:
        raise InputError(f"RANK={rank} with WORLD_SIZE={size}: ranks go from 0 to {size - 1}")
    _number("MASTER_PORT", least=1)
    return Place(rank, size, local_rank, local_size)


def refuse_other_launchers() -> None:
    """InputError where srun or mpirun started several processes that know nothing of each other."""
    for name, launcher in _OTHERS.items():
        if os.environ.get(name) and (count := _number(name)) > 1:
            raise InputError(
                f"{launcher} started {count} processes ({name}={count}), and each would train by itself: "
                f"start one torchrun on each host instead (docs/hosts.md), or unset {name}"
            )


def speaks() -> bool:
    """Whether this process is the one that speaks for a training: all ranks fail alike."""
    try:
        return (place() or ALONE).first
    except InputError:
        return True


def _number(name: str, *, least: int = 0) -> int:
    """A variable as a whole number; `least` where it is not set, or empty."""
    text = os.environ.get(name) or str(least)
    if not text.isdecimal() or int(text) < least:
        raise InputError(f"{name}={text}: expected a whole number from {least}")
    return int(text)
