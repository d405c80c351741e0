"""This machine's workers: the machine dealt out among them, dead ones replaced, all of them stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from imagenette.errors import EXIT_DONE
from imagenette.study.worker import Order
from imagenette.training.launch import GRACE

PAUSE = 1.0  # seconds before a dead worker's successor starts; doubled at each further death
MOST_DEATHS = 6  # of one place in the crew, within a study: then it stays empty

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """What of the machine one worker's trainings get."""

    threads: int
    """CPU threads, of torch and of the loader, over all its processes."""
    gpus: tuple[str, ...]

    @property
    def processes(self) -> int:
        """What nproc=auto means here."""
        return max(1, len(self.gpus))

    def env(self, processes: int) -> dict[str, str]:
        """Of a training with so many processes. More threads than cores would spin waiting for each other."""
        devices = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        said = os.environ.get("OMP_NUM_THREADS")
        return {"OMP_NUM_THREADS": said or str(max(1, self.threads // processes)), **devices}


def share_out(workers: int, *, cores: int, gpus: Sequence[str]) -> list[Share]:
    """The machine, dealt out: each worker gets its part of the cores and GPUs of its own, or one that it
    shares with as few others as possible where there are more workers than GPUs."""
    threads = max(1, cores // workers)
    return [Share(threads, tuple(deal(gpus, workers, turn))) for turn in range(workers)]


def deal(things: Sequence[T], hands: int, turn: int) -> Sequence[T]:
    """What hand number `turn` of `hands` gets: neighbours, as evenly as can be; nothing is left over."""
    if not things:
        return []
    if hands >= len(things):
        return [things[turn % len(things)]]
    bounds = [round(hand * len(things) / hands) for hand in (turn, turn + 1)]
    return things[bounds[0] : bounds[1]]


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, of the GPUs that this process may use."""
    import torch

    count = torch.cuda.device_count()
    said = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return said[:count] if said else [str(index) for index in range(count)]


@dataclass
class Place:
    """One worker's place in the crew, filled again when it dies."""

    order: Order
    log: Path
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    not_before: float = 0.0
    over: bool = False


@dataclass
class Crew:
    """So many workers, kept alive inside a with block."""

    places: list[Place] = field(default_factory=list)

    @classmethod
    def of(cls, orders: Sequence[Order], logs: Path) -> Self:
        return cls([Place(order, logs / f"worker-{i}.log") for i, order in enumerate(orders, 1)])

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> int:
        return sum(place.process is not None for place in self.places)

    @property
    def over(self) -> bool:
        """No worker is left, nor will one come."""
        return all(place.over for place in self.places)

    def mend(self) -> None:
        """Start whoever is missing, unless it ended because nothing is left, or dies again and again."""
        for place in self.places:
            code = place.process.poll() if place.process else None
            if code is not None:
                place.process = None
                place.deaths += code != EXIT_DONE
                place.over = code == EXIT_DONE or place.deaths >= MOST_DEATHS
                place.not_before = time.monotonic() + PAUSE * 2**place.deaths
            if place.process is None and not place.over and time.monotonic() >= place.not_before:
                place.process = start_worker(place.order, place.log)

    def stop(self) -> None:
        """Ask all to save and give back what they have; kill whoever has not by twice GRACE seconds."""
        left = [place.process for place in self.places if place.process is not None]
        for process in left:
            process.terminate()
        deadline = time.monotonic() + 2 * GRACE
        for process in left:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for place in self.places:
            place.process, place.over = None, True


def start_worker(order: Order, log: Path) -> subprocess.Popen[bytes]:
    """A worker in a session of its own: Ctrl-C in the terminal reaches the driver alone, which then asks."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        worker = subprocess.Popen(
            [sys.executable, "-m", "imagenette.study.worker"],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    assert worker.stdin is not None
    with worker.stdin:
        worker.stdin.write(order.model_dump_json().encode())
    return worker
