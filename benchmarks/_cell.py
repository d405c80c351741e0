"""`training.bench.measure` in processes of its own, so that no memory, thread pool or setting of one
measurement reaches the next. `run` starts the processes; each of them runs this module."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _common import free_port

from imagenette.config import resolve
from imagenette.data import Split
from imagenette.processes import cores
from imagenette.training.bench import measure
from imagenette.training.readiness import prepare

CHUNK = 256  # images copied at a time


def run(
    knobs: Mapping[str, object], *, rounds: int, steps: int, processes: int = 1, repeat: int = 1
) -> dict[str, Any]:
    """The summary of training.bench and `memory`, MB, the largest over processes.

    processes: how many train together, each with its share of the cores. repeat: how many times the training
    images lie on disk, as those of a larger data set would."""
    order = {"knobs": dict(knobs), "rounds": rounds, "steps": steps, "repeat": repeat}
    world: dict[str, str] = {}
    if "OMP_NUM_THREADS" not in os.environ:
        world["OMP_NUM_THREADS"] = str(max(1, cores() // processes))
    if processes > 1:
        size = str(processes)
        world |= {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, json.dumps(order)],
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=os.environ | world | ({"RANK": str(r), "LOCAL_RANK": str(r)} if processes > 1 else {}),
        )
        for r in range(processes)
    ]
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{dict(knobs)}: ended with {[process.returncode for process in started]}")
    ranks = [json.loads(text.splitlines()[-1]) for text in outputs]
    memory = {name: max(rank["memory"][name] for rank in ranks) for name in ranks[0]["memory"]}
    return {**ranks[0], "memory": memory}


def repeated(split: Split, times: int, folder: Path) -> Split:
    """The split with all its images `times` times, in a file of that size."""
    if times == 1:
        return split
    path, images = folder / "images.npy", split.images
    shape = (times * len(split), *images.shape[1:])
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    for first in range(0, len(made), CHUNK):
        rows = np.arange(first, min(first + CHUNK, len(made))) % len(split)
        made[first : first + len(rows)] = images[rows]
    made.flush()
    del made
    return dataclasses.replace(
        split,
        images=np.load(path, mmap_mode="c"),
        labels=np.tile(split.labels, times),
        sizes=np.tile(split.sizes, (times, 1)),
        names=split.names * times,
    )


@contextlib.contextmanager
def memory() -> Iterator[dict[str, float]]:
    """MB, filled in at the end. peak: the most that was resident, read pages of the images' file included.
    anonymous: the most that no file backs, read five times a second: what a machine must really have."""
    ended, seen = threading.Event(), [0]
    taken: dict[str, float] = {}

    def look() -> None:
        while not ended.wait(0.2):
            now = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
            assert now
            seen.append(int(now[1]))

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    yield taken
    ended.set()
    watch.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken.update(peak=peak * 1024 / 1e6, anonymous=max(seen) * 1024 / 1e6)


def main() -> None:
    order = json.loads(sys.argv[1])
    config = resolve(order["knobs"])
    dataset = prepare(config, processes=int(os.environ.get("WORLD_SIZE", "1")))
    with tempfile.TemporaryDirectory(prefix="imagenette-bench-") as folder:
        train = repeated(dataset.train, order["repeat"], Path(folder))
        dataset = dataclasses.replace(dataset, train=train)
        with memory() as taken:
            speed = measure(config, dataset, rounds=order["rounds"], steps=order["steps"])
    summary = speed.summary() | {"images": len(train), "memory": taken}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
