"""The processes that train together: which one this is, and what they agree on. One process is a world of
size 1."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from imagenette.config import Config
from imagenette.errors import InputError, RunError
from imagenette.processes import cores, in_thread, keep_freed_memory
from imagenette.training import hosts, ranks

T = TypeVar("T")
TIMEOUT = timedelta(minutes=10)  # longest that one rank may let the others wait
QUIET = 5.0  # seconds of waiting for the others before a line says so


@dataclass(frozen=True)
class World:
    """All ranks of a run, seen from one of them."""

    rank: int
    size: int
    device: torch.device
    watch: hosts.HostWatch | None = None
    """Over several hosts: which of the others still live."""

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def records(self) -> bool:
        """Whether steps are recorded and replayed (`Recorded`): on one GPU, where nobody is waited for."""
        return self.device.type == "cuda" and self.size == 1

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether any rank raises it; the same answer on every rank. Goes through the CPU, so
        that it never waits for a GPU."""
        if self.size == 1:
            return list(flags)
        votes = torch.tensor(flags, dtype=torch.int8)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return [bool(vote) for vote in votes.tolist()]

    def sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank; on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]  # type: ignore[no-any-return]

    def first_does(self, action: Callable[[], T]) -> T | None:
        """What action returns on rank 0; None on other ranks. If it fails on rank 0 every rank fails, so that
        none waits for another."""
        value, failure = None, None
        if self.first:
            try:
                value = action()
            except Exception as error:
                failure = error
        known = isinstance(failure, (InputError, RunError))  # others may not survive being sent
        shared = self.from_first(failure if known else failure and RunError(f"rank 0 failed: {failure!r}"))
        if failure or shared:
            raise failure or shared  # type: ignore[misc]  # one of them is an error
        return value

    def share_buffers(self, net: nn.Module) -> None:
        """Rank 0's running statistics everywhere, so that every rank evaluates the same network."""
        if self.size > 1:
            for buffer in net.buffers():
                dist.broadcast(buffer, src=0)


def choose_gpu_kernels(config: Config) -> None:
    """Which kernels this process's work on a GPU, if it may have one, takes from here on: those that give the
    same bits each time, as far as torch has such, or the fastest that cuDNN finds by trying. Before anything
    is done there: cuBLAS reads its variable once."""
    if config.device == "cpu":
        return
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if config.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(config.deterministic, warn_only=True)


@contextmanager
def join(device: str, *, stop: Callable[[], bool] = lambda: False) -> Iterator[World]:
    """The world that torchrun's variables describe; without them, this process alone.

    device: auto, cpu or cuda. gloo carries CPU tensors, nccl those on a GPU. stop: asked while this rank
    waits for the others; KeyboardInterrupt once it is true. RunError where they do not come."""
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = ranks.place()
    local = (place or ranks.ALONE).local_rank
    here = torch.device("cuda", local % torch.cuda.device_count()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(here)
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32: its default keeps ten bits
    else:
        keep_freed_memory()
        if "OMP_NUM_THREADS" not in os.environ:
            # Over all processes one thread a core, and no more: oneDNN's threads spin while they wait for
            # each other, and two processes of two threads on two cores run thirty times slower than one.
            torch.set_num_threads(max(1, cores() // (place or ranks.ALONE).local_size))
    if place is None:
        yield World(0, 1, here)
        return
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"

    def meet() -> hosts.HostWatch | None:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        watch = None
        if hosts.several():
            hosts.choose_interface(store)
            watch = hosts.HostWatch(store, rank, size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        return watch

    watch = _patiently(meet, place, stop)
    try:
        with watch.watching() if watch else nullcontext():
            yield World(place.rank, place.size, here, watch)
    except BaseException:
        if not cuda:  # NCCL would wait for what the other ranks will never send
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _patiently(meet: Callable[[], T], place: ranks.Place, stop: Callable[[], bool]) -> T:
    """What meet returns, from a thread of its own: torch waits for the other ranks in C++, where no signal is
    heard."""
    met = in_thread(meet, name="meeting")
    others = f"the other processes of WORLD_SIZE={place.size} at {os.environ['MASTER_ADDR']}"
    quiet_until = time.monotonic() + QUIET
    while not met.done():
        if stop():
            raise KeyboardInterrupt
        if place.first and time.monotonic() > quiet_until:
            print(f"imagenette: rank 0 waits for {others}", file=sys.stderr, flush=True)
            quiet_until = float("inf")
        wait([met], timeout=0.1)
    try:
        return met.result()
    except dist.DistError as error:
        raise RunError(f"{others} did not come: {str(error).splitlines()[0]}") from None


def loader_threads(workers: int) -> int:
    """Threads per process that prepare pictures; 0 = this process's share of the cores."""
    return workers or max(1, cores() // (ranks.place() or ranks.ALONE).local_size)
