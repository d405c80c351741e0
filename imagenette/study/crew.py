"""This machine's workers: started with a share of its cores and GPUs each, replaced when they die, stopped
together. Knows processes; knows nothing of cells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from imagenette.errors import EXIT_DONE
from imagenette.study.worker import Order
from imagenette.training.launch import GRACE

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
        """Variables for a training with so many processes. More threads than cores would only wait for each
        other; OMP_NUM_THREADS wins where the user has set it."""
        devices = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, self.threads // processes))
        return {"OMP_NUM_THREADS": threads, **devices}


def share_out(workers: int, *, cores: int, gpus: Sequence[str]) -> list[Share]:
    """A share for each worker: its part of the cores, and GPUs of its own, or one that it shares with as few
    others as possible where there are more workers than GPUs."""
    threads = max(1, cores // workers)
    return [Share(threads, tuple(deal(gpus, workers, turn))) for turn in range(workers)]


def deal(things: Sequence[T], hands: int, turn: int) -> Sequence[T]:
    """What hand number `turn` of `hands` gets: neighbours, as evenly as can be, and nothing is left over."""
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
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return names[:count] if names else [str(index) for index in range(count)]


@dataclass
class Restarts:
    """How often one place in the crew was filled again, and when it may be next."""

    PAUSE: ClassVar[float] = 1.0
    """Seconds before a dead worker's successor starts; doubled at each further death."""
    MOST: ClassVar[int] = 6
    """Deaths within a study after which the place stays empty."""

    deaths: int = 0
    not_before: float = 0.0

    def count(self) -> None:
        self.deaths += 1
        self.not_before = time.monotonic() + self.PAUSE * 2**self.deaths

    @property
    def over(self) -> bool:
        return self.deaths >= self.MOST

    @property
    def due(self) -> bool:
        return not self.over and time.monotonic() >= self.not_before


@dataclass
class Place:
    """One worker's place in the crew, filled again when it dies."""

    order: Order
    log: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: Restarts = field(default_factory=Restarts)
    over: bool = False


@dataclass
class Crew:
    """So many workers, kept alive inside a with block."""

    places: list[Place]

    @classmethod
    def of(cls, orders: Sequence[Order], logs: Path) -> Self:
        return cls([Place(order, logs / f"worker-{i}.log") for i, order in enumerate(orders, 1)])

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
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
                if code != EXIT_DONE:
                    place.restarts.count()
                place.over = code == EXIT_DONE or place.restarts.over
            if place.process is None and not place.over and place.restarts.due:
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
