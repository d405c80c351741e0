"""A run's state on disk: written whole or not at all, with a checksum, the previous one kept. Refuses a
damaged file.

A file is one line, `imagenette-checkpoint 1 <sha256>`, and then torch's own format, without pickled code.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from imagenette.errors import RunError
from imagenette.files import sync_folder
from imagenette.records import Epoch, Predictions
from imagenette.results import selected_epoch
from imagenette.training import optim
from imagenette.training.distributed import World
from imagenette.training.job import other_data
from imagenette.training.step import Meters, TrainState

MAGIC = b"imagenette-checkpoint 1 "


def _warn(message: str) -> None:
    print(message, file=sys.stderr)


class Damaged(RunError):
    """The file is not what was written."""


@dataclass(frozen=True)
class Selected:
    """The selected epoch: its weights, and their predictions for the test set."""

    epoch: int
    net: dict[str, torch.Tensor]
    predictions: Predictions


class Checkpoints:
    """`last.pt` and `previous.pt` in a folder: at every moment at least one of them is whole. Beside them
    `selected.pt`, the weights of the epoch that is selected so far, as `last.pt` has it: new ones are
    `choice.pt` until that is written. Every rank calls, rank 0 writes."""

    def __init__(self, folder: Path, world: World, *, data: str = "", share: float = 1.0) -> None:
        """data: digest of what is trained on; a state goes on with the same only. share: of the time, that
        saving after epochs may take: 1 saves after every one."""
        self._folder, self._world, self._data = folder, world, data
        self._last, self._previous = folder / "last.pt", folder / "previous.pt"
        self._selected, self._choice = folder / "selected.pt", folder / "choice.pt"
        self._best: dict[str, Any] | None = None  # selected so far, and not on the disk yet
        self._chosen = 0  # its epoch, on the disk or not
        self._pauses = 1 / share - 1  # between two saves, in times of what one takes
        self._took, self._ended = 0.0, 0.0
        self.epochs = 0
        """How many the newest state on the disk has behind it."""

    def save(self, state: TrainState) -> list[Epoch]:
        """The epochs that are on the disk only now. RunError on a full disk; what was saved before is
        whole."""
        began = time.monotonic()
        best, self._best = self._best, None
        if best:  # first, so that no state lacks them
            self._world.first_does(lambda: write(self._choice, best))
        packed = pack(state, self._world) | {"data": self._data, "selected": self._chosen}
        self._world.first_does(lambda: self._replace(packed))
        self._ended = time.monotonic()
        self._took = self._ended - began
        fresh, self.epochs = state.history[self.epochs :], len(state.history)
        return fresh

    def save_epoch(
        self, state: TrainState, predictions: Predictions | None, *, by_holdout: bool, end: bool = True
    ) -> list[Epoch]:
        """Save the state after an epoch, and the weights with their predictions for the test set if they are
        the best so far; or keep both for a later save, where saving takes more than its share of the time.
        end: the last epoch, which is always saved. The epochs that are on the disk only now."""
        ended = state.epoch - 1
        if predictions is not None and selected_epoch(state.history, holdout=by_holdout) == ended:
            columns = {f.name: torch.from_numpy(getattr(predictions, f.name)) for f in fields(predictions)}
            net = {name: tensor.clone() for name, tensor in state.judged.state_dict().items()}
            self._best = {"epoch": ended, "net": net, "predictions": columns}
            self._chosen = ended
        due = time.monotonic() - self._ended >= self._pauses * self._took
        return self.save(state) if end or any(self._world.any(self._world.first and due)) else []

    def restore(self, state: TrainState, warn: Callable[[str], None] = _warn) -> None:
        """Put the newest whole state into a fresh one, which stays fresh where nothing was saved yet.
        RunError where every saved state is damaged; InputError where it was trained on other data."""
        saved = self._world.from_first(self._world.first_does(lambda: self._whole(warn)))
        if saved is not None:
            if saved.get("data", self._data) != self._data:  # earlier versions did not say
                raise other_data(self._folder, saved["data"], self._data)
            unpack(saved, state, self._world)
            self._chosen = saved.get("selected", 0)
        self.epochs = len(state.history)

    def newest(self, warn: Callable[[str], None] = _warn) -> dict[str, Any] | None:
        found = [path for path in (self._last, self._previous) if path.exists()]
        for path in found:
            try:
                return read(path)
            except Damaged as damage:
                warn(f"{damage}; falling back to the one before")
        if found:
            raise RunError(f"no checkpoint in {self._folder} is whole: train again in another output folder")
        return None

    def _whole(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest state, beside the weights that it has selected: those of epochs that it has not seen are
        of a course that was cut off, and the next may be another."""
        saved = self.newest(warn)
        if self._choice.exists():
            if saved and read(self._choice)["epoch"] == saved.get("selected"):
                self._choice.replace(self._selected)
            else:
                self._choice.unlink()
        return saved

    def selected(self) -> Selected:
        saved = read(self._selected)
        columns = {name: tensor.numpy() for name, tensor in saved["predictions"].items()}
        return Selected(saved["epoch"], saved["net"], Predictions(**columns))

    def discard(self, *, keep_last: bool = False) -> None:
        """The run came to its end, and its models have the weights. keep_last: a longer run may go on from
        here."""
        kept = {self._last, self._selected} if keep_last else set()
        for path in self._folder.glob("*.pt*"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _replace(self, packed: dict[str, Any]) -> None:
        fresh = self._folder / "fresh.pt"
        write(fresh, packed)
        if self._last.exists():
            self._last.replace(self._previous)
        fresh.replace(self._last)
        if self._choice.exists():
            self._choice.replace(self._selected)
        sync_folder(self._folder)


def write(path: Path, state: dict[str, Any]) -> None:
    """Replace what is at path; on the disk when this returns. RunError on a full disk: then path is as
    before."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    beside = path.with_name(path.name + ".writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n")
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RunError(f"cannot save {path}: {error.strerror}; the checkpoint before it is whole") from None


def read(path: Path) -> dict[str, Any]:
    """The state at path, on the CPU. Damaged if any bit differs from what was written."""
    header, _, payload = path.read_bytes().partition(b"\n")
    if header != MAGIC + hashlib.sha256(payload).hexdigest().encode():
        raise Damaged(f"checkpoint {path} is damaged (checksum)")
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state


def pack(state: TrainState, world: World) -> dict[str, Any]:
    """The state of all ranks as plain values; every rank must call it. Weights are the same on every rank;
    sums and random states are each rank's own (a network with dropout draws from the latter)."""
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
    """Put what pack() gave into a fresh state of the same shape. With another number of ranks than before,
    rank 0 takes over the sums of all."""
    state.net.load_state_dict(saved["net"])
    optim.restore(state.optimizer, saved["optimizer"])
    if state.average is not None:
        state.average.load_state_dict(saved["average"])
    state.epoch, state.step = saved["epoch"], saved["step"]
    state.history = [Epoch(**epoch) for epoch in saved["history"]]
    ranks = saved["ranks"]
    if len(ranks) == world.size:
        state.meters = _meters([ranks[world.rank]], state.step, world.device)
        restore_random(ranks[world.rank]["random"])
    else:
        state.meters = _meters(ranks if world.first else [], state.step, world.device)


def _meters(ranks: list[dict[str, Any]], step: int, device: torch.device) -> Meters:
    meters = Meters.zero(device)
    meters.step += step
    for loss, correct, bad_step, images, seconds in (rank["sums"] for rank in ranks):
        meters.loss += loss.to(device)
        meters.correct += correct.to(device)
        meters.bad_step = torch.maximum(meters.bad_step, bad_step.to(device))
        meters.images += images
        meters.seconds = max(meters.seconds, seconds)
    return meters


def random_state() -> list[torch.Tensor]:
    # Where no GPU is in use, asking it would make a context on it, and keep its memory from others.
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def restore_random(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states[1])
