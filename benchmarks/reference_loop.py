"""The reference's own training loop beside ours, in turns: float32, NCHW, ImageFolder, PIL transforms, two
loader workers, no autocast. Written anew from its description; see `--help`."""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

from imagenette.bench import endless
from imagenette.config import resolve
from imagenette.distributed import join
from imagenette.launch import prepare
from imagenette.loop import train_step
from imagenette.system import machine
from imagenette.train import make_state, make_task

MEAN, STD = (0.4625, 0.4580, 0.4295), (0.2452, 0.2390, 0.2469)
Batch = tuple[torch.Tensor, torch.Tensor]


def reference_batches(folder: Path, *, size: int, batch_size: int) -> Iterator[Batch]:
    """Epoch after epoch of its training loader."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = DataLoader(
        datasets.ImageFolder(str(folder / "train"), transform),
        batch_size=batch_size,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    while True:
        yield from loader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a tar with train/ and val/ (unpacked into --unpacked)")
    parser.add_argument("--unpacked", type=Path, required=True, help="folder for the ImageFolder loader")
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps per round")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()

    if not given.unpacked.exists():
        with tarfile.open(given.archive) as archive:
            archive.extractall(given.unpacked, filter="data")
    (folder,) = [path.parent for path in given.unpacked.rglob("train")]
    knobs = {
        "data": str(given.archive),
        "depth": given.depth,
        "size": given.size,
        "batch_size": given.batch_size,
    }
    config = resolve(knobs)
    dataset = prepare(config, processes=1)

    with join("cpu") as world:
        task = make_task(config, dataset, world)
        state = make_state(config, len(dataset.classes), world)
        state.net.train()
        epochs = itertools.count(1)
        net = getattr(models, f"resnet{given.depth}")(num_classes=len(dataset.classes)).train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        loss = nn.CrossEntropyLoss()
        theirs = reference_batches(folder, size=given.size, batch_size=given.batch_size)

        def reference(steps: int) -> float:
            started, images = time.perf_counter(), 0
            for inputs, labels in itertools.islice(theirs, steps):
                optimizer.zero_grad()
                loss(net(inputs), labels).backward()
                optimizer.step()
                images += len(labels)
            return images / (time.perf_counter() - started)

        def ours(steps: int) -> float:
            started, images = time.perf_counter(), 0
            for batch in endless(task.train, steps, first_epoch=next(epochs)):
                train_step(state.net, state, batch, task, world)
                images += batch.global_size
            return images / (time.perf_counter() - started)

        for warm_up in (reference, ours):
            warm_up(3)
        rounds = [(ours(given.steps), reference(given.steps)) for _ in range(given.rounds)]
        mine, peer = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(a / b for a, b in rounds)
        print(f"ours             {mine:8.1f} images/s")
        print(f"reference's loop {peer:8.1f} images/s")
        print(f"ratio            {ratio:8.2f}  (median of {given.rounds} rounds of {given.steps} steps)")
        if given.json:
            figures = {
                "ours": mine,
                "reference": peer,
                "ratio": ratio,
                "rounds": rounds,
                "steps": given.steps,
            }
            record = figures | {"config": config.params(), "machine": machine(world.device, world.size)}
            given.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
