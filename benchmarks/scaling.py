"""Training images/s and memory while one thing grows: processes, threads that make pictures, the data set.

    python benchmarks/scaling.py --data ARCHIVE --json FILE

Every cell trains in processes of its own (as `imagenette bench` does), the real data path in turns with a
resident batch. All cells take turns, a round at a time, so that noise of the machine hits all of them.

processes   the global batch stays; each process has its share of the cores (OMP_NUM_THREADS).
workers     the knob of that name: threads that crop and resize.
data        the training images repeated in a file of that size: the question is a larger set, and not a
            second look at the same pages. `anonymous` memory is what a machine must have; the peak also
            counts pages of the file that were read, which the kernel takes back when it likes.
"""

from __future__ import annotations

import statistics
from functools import partial

import _cell
import _common

KNOBS = ("data", "seed", "depth", "size", "batch_size", "optimizer")


def main() -> None:
    parser = _common.parser(__doc__, rounds=5, steps=20, network=True)
    _common.add_optimizer(parser)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 3, 4, 6, 8])
    parser.add_argument("--repeats", type=int, nargs="*", default=[1, 4], help="times the data set")
    given = parser.parse_args()

    facts = _common.about(seeds=[given.seed])
    knobs = {name: vars(given)[name] for name in KNOBS}
    run = partial(_cell.run, rounds=1, steps=given.steps)
    same = knobs | {"device": "cpu"}
    cells = {
        **{f"processes={n}": partial(run, same, processes=n) for n in given.processes},
        **{f"workers={n}": partial(run, same | {"workers": n}) for n in given.workers},
        **{f"data x{n}": partial(run, same, repeat=n) for n in given.repeats},
    }
    figures = _common.in_turns(cells, rounds=given.rounds)
    rows = [row(name, rounds, beside(name, figures)) for name, rounds in figures.items()]
    for cell in (cell for rounds in figures.values() for cell in rounds):
        cell["config"] = _common.shown(cell["config"])
    notes = [
        f"ResNet-{given.depth}, {given.size} px, batch {given.batch_size}, bfloat16, {given.optimizer}; "
        f"medians of {given.rounds} rounds of {given.steps} steps; memory is the largest process's."
    ]
    _common.publish(facts, rows, file=given.json, notes=notes, rounds=figures)


def beside(name: str, figures: dict[str, list[dict]]) -> list[dict]:
    """The first cell of the same kind: what the others are compared with."""
    kind = name.rstrip("0123456789")
    return next(rounds for other, rounds in figures.items() if other.startswith(kind))


def row(name: str, rounds: list[dict], first: list[dict]) -> dict[str, object]:
    speeds, start = ([cell["images_per_second"] for cell in cells] for cells in (rounds, first))
    return {
        "cell": name,
        "training images": rounds[0]["images"],
        "images/s": statistics.median(speeds),
        "rounds": _common.spread(speeds),
        "of the first": _common.ratio(speeds, start),
        "of its limit": statistics.median(cell["ratio"] for cell in rounds),
        "peak MB": statistics.median(cell["memory"]["peak"] for cell in rounds),
        "anonymous MB": statistics.median(cell["memory"]["anonymous"] for cell in rounds),
    }


if __name__ == "__main__":
    main()
