"""A run's state on disk: atomic, checksummed, complete, the previous one kept. Refuses a damaged file.

A file is a line `imagenette-checkpoint 1 <sha256>` and then torch's own format, without pickled code.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imagenette.distributed import World
from imagenette.errors import RunError
from imagenette.loop import Meters, TrainState
from imagenette.records import Epoch, Predictions

MAGIC = b"imagenette-checkpoint 1 "


class Damaged(RunError):
    """The file is not what was written."""


@dataclass(frozen=True)
class Selected:
    """The selected epoch: its weights and what they say of the test set."""

    epoch: int
    net: dict[str, torch.Tensor]
    predictions: Predictions


class Checkpoints:
    """`last.pt` and `previous.pt` in a folder: at every moment at least one of them is whole. Beside them
    `selected.pt`, the weights of the epoch that is selected so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last, self._previous = folder / "last.pt", folder / "previous.pt"
        self._selected = folder / "selected.pt"

    def save(self, state: dict[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        beside = self._folder / "last.pt.writing"
        write(beside, state)
        if self._last.exists():
            self._last.replace(self._previous)
        beside.replace(self._last)
        _sync_folder(self._folder)

    def load(self, warn: Callable[[str], None] = print) -> dict[str, Any] | None:
        """The newest whole state, or None where none was ever saved. RunError if all there is is damaged."""
        found = [path for path in (self._last, self._previous) if path.exists()]
        for path in found:
            try:
                return read(path)
            except Damaged as damage:
                warn(f"{damage}; falling back to the one before")
        if found:
            raise RunError(f"no checkpoint in {self._folder} is whole: train again in another output folder")
        return None

    def keep_selected(self, epoch: int, net: nn.Module, predictions: Predictions) -> None:
        """To be called before the save() of the same epoch: a state that names an epoch finds its weights."""
        self._folder.mkdir(parents=True, exist_ok=True)
        beside = self._folder / "selected.pt.writing"
        said = {f.name: torch.from_numpy(getattr(predictions, f.name)) for f in fields(predictions)}
        write(beside, {"epoch": epoch, "net": net.state_dict(), "predictions": said})
        beside.replace(self._selected)
        _sync_folder(self._folder)

    def selected(self) -> Selected:
        saved = read(self._selected)
        said = {name: tensor.numpy() for name, tensor in saved["predictions"].items()}
        return Selected(saved["epoch"], saved["net"], Predictions(**said))


def write(path: Path, state: dict[str, Any]) -> None:
    """Write state to path and to the disk. RunError on a full disk, with nothing left at path."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    try:
        with path.open("wb") as file:
            file.write(MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n")
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise RunError(
            f"cannot save the checkpoint {path}: {error.strerror}; the one before is whole"
        ) from None


def read(path: Path) -> dict[str, Any]:
    """The state in path, on the CPU. Damaged if any bit of it is not as written."""
    header, _, payload = path.read_bytes().partition(b"\n")
    if header != MAGIC + hashlib.sha256(payload).hexdigest().encode():
        raise Damaged(f"checkpoint {path} is damaged (checksum)")
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state


def pack(state: TrainState, world: World) -> dict[str, Any]:
    """The state of all ranks as plain values; a collective call. Weights are the same on every rank; sums
    and random states are each rank's own (a network with dropout would draw from the latter)."""
    meters = state.meters
    sums = [meters.loss.cpu(), meters.correct.cpu(), meters.bad_step.cpu(), meters.images, meters.seconds]
    return {
        "net": state.net.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "average": state.average.state_dict() if state.average is not None else None,
        "epoch": state.epoch,
        "step": state.step,
        "history": [asdict(epoch) for epoch in state.history],
        "ranks": world.gather({"sums": sums, "random": random_state()}),
    }


def unpack(saved: dict[str, Any], state: TrainState, world: World) -> None:
    """Put what pack() took into a fresh state of the same shape. With another number of ranks, rank 0 takes
    over the sums of all."""
    state.net.load_state_dict(saved["net"])
    state.optimizer.load_state_dict(saved["optimizer"])
    if state.average is not None:
        state.average.load_state_dict(saved["average"])
    state.epoch, state.step = saved["epoch"], saved["step"]
    state.history = [Epoch(**epoch) for epoch in saved["history"]]
    ranks = saved["ranks"]
    if len(ranks) == world.size:
        state.meters = _meters([ranks[world.rank]], world.device)
        restore_random(ranks[world.rank]["random"])
    else:
        state.meters = _meters(ranks if world.first else [], world.device)


def _meters(ranks: list[dict[str, Any]], device: torch.device) -> Meters:
    meters = Meters.zero(device)
    for loss, correct, bad_step, images, seconds in (rank["sums"] for rank in ranks):
        meters.loss += loss.to(device)
        meters.correct += correct.to(device)
        meters.bad_step = torch.maximum(meters.bad_step, bad_step.to(device))
        meters.images += images
        meters.seconds = max(meters.seconds, seconds)
    return meters


def random_state() -> list[torch.Tensor]:
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *cuda]


def restore_random(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[1])


def _sync_folder(folder: Path) -> None:
    """Make the renames last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
