"""Milliseconds of a 3 x 3 convolution's weight gradient by torch's kernel and by one matrix product
(imagenette/network/kernels.py), for the shapes of a ResNet at 64 and 128 px, forward pass beside them.

    python benchmarks/kernels.py --json FILE

The shapes where the product pays are the rule `pays`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import _common
import torch
import torch.nn.functional as F
from torch import Tensor

from imagenette.network.kernels import Conv2d, pays, weight_gradient

SHAPES = [
    (64, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
    (256, 512, 2),
    (512, 512, 1),
]
"""Channels in, channels out, stride, from the first stage to the last."""
SIDES = {64: 16, 128: 32}  # px of pictures: px of the first stage's maps


def main() -> None:
    parser = _common.parser(__doc__, rounds=15)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"])
    given = parser.parse_args()
    facts = _common.about(seeds=[1])
    torch.manual_seed(1)
    rows: list[dict[str, object]] = []
    for precision in given.precisions:
        for size, first in SIDES.items():
            for batch in given.batch_sizes:
                side = first
                for channels, filters, stride in SHAPES:
                    conv = Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
                    input = torch.randn(batch, channels, side, side)
                    place = {"precision": precision, "size": size, "batch": batch}
                    shape = f"{channels} x {side} x {side} to {filters}"
                    times = clocked(conv, input, getattr(torch, precision), rounds=given.rounds)
                    chosen = {"auto": "product" if pays(conv, input, getattr(torch, precision)) else "stock"}
                    rows.append({**place, "shape": shape, "stride": stride, **times, **chosen})
                    side //= stride
    _common.publish(facts, rows, file=given.json)


def clocked(conv: Conv2d, input: Tensor, kind: torch.dtype, *, rounds: int) -> dict[str, float]:
    """Median milliseconds of each, in turns."""
    stride = conv.stride[0]
    images, weight = (
        each.detach().to(kind).to(memory_format=torch.channels_last) for each in (input, conv.weight)
    )
    gradient = torch.randn_like(F.conv2d(images, weight, stride=stride, padding=1))
    geometry = ((stride, stride), (1, 1), (1, 1), False, (0, 0), 1)

    def stock() -> Tensor:
        of_weight = (False, True, False)
        made = torch.ops.aten.convolution_backward(gradient, images, weight, None, *geometry, of_weight)
        found: Tensor = made[1]
        return found

    ways: dict[str, Callable[[], Tensor]] = {
        "forward": lambda: F.conv2d(images, weight, stride=stride, padding=1),
        "stock": stock,
        "product": lambda: weight_gradient(gradient, images, stride=stride, padding=1),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if turn:  # the first is for warming up
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(each) for name, each in times.items()}


if __name__ == "__main__":
    main()
