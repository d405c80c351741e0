"""Training images/s of `imagenette` and of the loops people would use instead: the reference report's own,
torchvision's reference, timm's, fastai's. Real images, the same ResNet, in turns, on a CPU; ours and timm's
also on a GPU.

    python benchmarks/peers.py --data ARCHIVE --unpacked FOLDER --json FILE

Every loop lives in a process of its own, which sleeps outside its turn. First each loop has a short turn with
each of its flags and numbers of loader workers; the fastest combination is measured, and the table names it.
The reference's own loop stays as it was written (two workers).

Loader workers share the cores with the training. They start and end with a turn, so that they never run
during another loop's. Batches made ahead must not count for or against a loop, so a turn begins with steps
that are not timed: twice as many as batches may lie ready (two a worker), and ten more, in which the process
gets back its caches and pages. From then on the number of ready batches stays the same, and as many batches
are made as consumed while the clock runs, but for two a worker at most: --steps must be many more.
"""

from __future__ import annotations

import multiprocessing
import shutil
import statistics
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import _common
import torch
from _loops import Flags, Setting, ours, reference, timm_, torchvision


@dataclass(frozen=True)
class Way:
    """Flags and loader workers of a loop."""

    flags: Flags = ()
    workers: int = 0

    def __str__(self) -> str:
        return ", ".join([*self.flags, f"{self.workers} workers"])


FLAGS: dict[str, Sequence[Flags]] = {
    "ours": [("bfloat16", "channels-last")],
    "reference": [("float32",)],
    "torchvision": [
        (backend, *precision)
        for backend in ("pil", "tensor")
        for precision in (("float32",), ("bfloat16", "channels-last"))
    ],
    "timm": [("bfloat16", "channels-last"), ("bfloat16", "channels-last", "prefetcher")],
    "fastai": [("float32",), ("float32", "channels-last")],
    "fastai with our callback": [("bfloat16", "channels-last")],
}
ON_GPU = {"timm"}
WORKERS = {"ours": [0], "reference": [2]}  # the others': --workers. Ours are threads, 0 = one a core


class Player:
    """A loop in a process of its own."""

    def __init__(self, name: str, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=play, args=(name, setting, there), name=name)
        self._process.start()
        there.close()

    def turn(self, way: Way, steps: int) -> float:
        """images/s."""
        self._here.send((way, steps))
        try:
            return float(self._here.recv())
        except EOFError:
            raise SystemExit(f"{self._process.name} ({way}) has ended: see above") from None

    def close(self) -> None:
        self._here.close()
        self._process.join()


def play(name: str, setting: Setting, requests: Connection) -> None:
    """What a player's process runs: a turn for each request, until the other end closes."""
    if name.startswith("fastai"):
        from _fastai import fastai

        make = fastai
    else:
        make = {"ours": ours, "reference": reference, "torchvision": torchvision, "timm": timm_}[name]
    held, turn = None, None
    while True:
        try:
            way, steps = requests.recv()
        except EOFError:
            return
        if way != held:
            held, turn = way, make(setting, way.workers, way.flags)
        requests.send(turn(4 * way.workers + 10, steps))


def unpack(archive: str, folder: Path) -> Path:
    """The folder with train/ and val/, unpacked unless it is there."""
    if not folder.exists():
        beside = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        with tarfile.open(archive) as images:
            images.extractall(beside, filter="data")
        beside.rename(folder)
    return next(path.parent for path in folder.rglob("train") if path.is_dir())


def choose(player: Player, ways: Sequence[Way], steps: int) -> tuple[Way, dict[str, float]]:
    """The fastest way, and what each gave in a short turn."""
    if len(ways) == 1:
        return ways[0], {}
    tried = {way: player.turn(way, steps) for way in ways}
    return max(tried, key=tried.__getitem__), {str(way): speed for way, speed in tried.items()}


def main() -> None:
    parser = _common.parser(__doc__, rounds=5, steps=30, network=True)
    parser.add_argument("--unpacked", type=Path, required=True, help="folder for the others' loaders")
    parser.add_argument("--peers", nargs="+", default=list(FLAGS)[1:], choices=list(FLAGS)[1:])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="to choose from [0 1 2]")
    parser.add_argument("--try-steps", type=int, default=6, help="of the turns that choose [6]")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"], help="[cpu]")
    given = parser.parse_args()
    device = "cuda" if given.device != "cpu" and torch.cuda.is_available() else "cpu"
    if given.device == "cuda" != device:
        parser.error("no GPU is there")
    if device == "cuda" and set(given.peers) - ON_GPU:
        parser.error(f"on a GPU: --peers {' '.join(ON_GPU)}")

    packages = ["timm"] + ["fastai"] * any(name.startswith("fastai") for name in given.peers)
    facts = _common.about(*packages, seeds=[given.seed], device=device)
    same = {name: vars(given)[name] for name in ("depth", "size", "batch_size", "seed")}
    setting = Setting(archive=given.data, folder=unpack(given.data, given.unpacked), device=device, **same)
    names = ["ours", *given.peers]
    ways, tries = {}, {}
    with ExitStack() as stack:  # closing ends a player, which would be waited for otherwise
        players = {name: stack.enter_context(closing(Player(name, setting))) for name in names}
        for name, player in players.items():
            every = [Way(flags, n) for flags in FLAGS[name] for n in WORKERS.get(name, given.workers)]
            ways[name], tries[name] = choose(player, every, given.try_steps)
            _common.say(f"{name}: {ways[name]} {tries[name] or ''}")
        turns = {name: partial(player.turn, ways[name], given.steps) for name, player in players.items()}
        figures = _common.in_turns(turns, rounds=given.rounds)
    rows = [
        {
            "loop": name,
            "as": str(ways[name]),
            "images/s": statistics.median(speeds),
            "rounds": _common.spread(speeds),
            "ours / it": _common.ratio(figures["ours"], speeds),
        }
        for name, speeds in figures.items()
    ]
    note = (
        f"ResNet-{given.depth}, {given.size} px, batch {given.batch_size}; medians of {given.rounds} rounds "
        f"of {given.steps} steps, ratios by round; flags and workers chosen in turns of {given.try_steps}."
    )
    _common.publish(facts, rows, file=given.json, notes=[note], rounds=figures, tries=tries, setting=same)


if __name__ == "__main__":
    main()
