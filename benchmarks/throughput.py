"""Training images/s of the real data path, of one resident batch (the machine's limit), and of that batch by
torch's own kernels in plain steps, for every depth, size, precision and batch size that is asked for.

    python benchmarks/throughput.py --data ARCHIVE --json FILE

A cell is `imagenette bench` in a process of its own: all kinds in turns, medians over rounds. The file is
written anew after every cell, so a grid that is cut short keeps what it has.
"""

from __future__ import annotations

import itertools

import _cell
import _common

KINDS = ("depth", "size", "precision", "batch_size")


def main() -> None:
    parser = _common.parser(__doc__, rounds=5, steps=20)
    parser.add_argument("--depths", type=int, nargs="+", default=[18, 34, 50, 101, 152])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128], help="px")
    parser.add_argument("--precisions", nargs="+", default=["bfloat16"], choices=["bfloat16", "float32"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32])
    _common.add_optimizer(parser)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    given = parser.parse_args()

    facts = _common.about(seeds=[given.seed], device=given.device)
    grid = itertools.product(given.depths, given.sizes, given.precisions, given.batch_sizes)
    rows: list[dict[str, object]] = []
    cells: list[dict[str, object]] = []
    for values in grid:
        varied = dict(zip(KINDS, values, strict=True))
        _common.say(", ".join(f"{name}={value}" for name, value in varied.items()))
        same = {name: vars(given)[name] for name in ("data", "seed", "device", "optimizer")}
        cell = _cell.run(varied | same, rounds=given.rounds, steps=given.steps)
        cell["config"] = _common.shown(cell["config"])
        cells.append(cell)
        rows.append(row(varied, cell))
        _common.save(given.json, facts, table=rows, cells=cells)
    note = (
        f"Medians of {given.rounds} rounds of {given.steps} steps; optimizer: {given.optimizer}; "
        f"data: {cells[0]['config']['data']}."
    )
    _common.publish(facts, rows, file=given.json, notes=[note], cells=cells)


def row(varied: dict[str, object], cell: dict[str, object]) -> dict[str, object]:
    return {
        "network": f"ResNet-{varied['depth']}",
        "px": varied["size"],
        "precision": varied["precision"],
        "batch": varied["batch_size"],
        "images/s": cell["images_per_second"],
        "rounds": _common.spread(cell["rounds"]["real"]),
        "limit, images/s": cell["limit_images_per_second"],
        "of the limit": cell["ratio"],
        "torch's kernels, images/s": cell.get("plain_images_per_second", "the same"),
        "times theirs": cell.get("gain", 1.0),
        "peak MB": cell["memory"]["peak"],
    }


if __name__ == "__main__":
    main()
