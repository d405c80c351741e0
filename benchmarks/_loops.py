"""One training loop per library, each as its users write it; the same ResNet on the same pictures, on the
CPU; ours and timm's also on a GPU. Knows nothing of rounds and medians.

All draw a crop of at least 35 % of the area, resize it and mirror half; SGD with Nesterov momentum, label
smoothing 0.1. The reference's own loop alone keeps its own (8 %, no smoothing, plain momentum).

A loop is made once with its flags and number of loader workers; each turn of it starts loader processes,
warms up, measures and ends them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import timm
import torch
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

from imagenette.config import resolve
from imagenette.data.dataset import MEAN, STD
from imagenette.training.distributed import join
from imagenette.training.readiness import prepare
from imagenette.training.step import stepper
from imagenette.training.train import make_state, make_task

CROP = (0.35, 1.0)  # shares of the area, our `fast` recipe's from 14 epochs on
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
SMOOTHING = 0.1

Flags = tuple[str, ...]
Turn = Callable[[int, int], float]
"""(steps to warm up, steps to measure) -> images/s."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    archive: str
    folder: Path
    """The same images, unpacked: train/CLASS/*."""
    depth: int
    size: int
    batch_size: int
    seed: int
    device: str = "cpu"


def ours(setting: Setting, workers: int, flags: Flags) -> Turn:
    """The loop of `imagenette train`, set to what the others do: their optimizer, their crops, one
    resolution from the start. The recipe's own may cost more or less a step."""
    knobs = {name: getattr(setting, name) for name in ("depth", "size", "batch_size", "seed")}
    same = SGD | {"optimizer": "sgd", "label_smoothing": SMOOTHING, "crop_scale": CROP[0], "start_size": 0}
    here = {"data": setting.archive, "device": setting.device, "workers": workers, "precision": "bfloat16"}
    config = resolve(knobs | same | here)
    dataset = prepare(config, processes=1)
    with join(config.device) as world:  # one process: nothing to leave
        task = make_task(config, dataset, world)
        state = make_state(config, len(dataset.classes), world)
        step = stepper(state, task, world)
        state.net.train()
    epochs = itertools.count(1)

    def steps() -> Iterator[int]:
        while True:
            for batch in task.train.epoch(next(epochs)):
                step(batch)
                yield batch.global_size

    return partial(timed, steps)


def folder_and_resnet(
    setting: Setting, workers: int, transform: transforms.Compose
) -> tuple[DataLoader, nn.Module]:
    """torchvision's own: shuffled batches of the folder's training images, and its ResNet."""
    images = datasets.ImageFolder(str(setting.folder / "train"), transform)
    loader = DataLoader(images, batch_size=setting.batch_size, shuffle=True, num_workers=workers)
    return loader, getattr(models, f"resnet{setting.depth}")(num_classes=len(images.classes))


def reference(setting: Setting, workers: int, flags: Flags) -> Turn:
    """The reference report's own loop, written anew from its description: float32, NCHW, PIL."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(setting.size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader, net = folder_and_resnet(setting, workers, transform)
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    loss = nn.CrossEntropyLoss()

    def steps() -> Iterator[int]:
        while True:
            for inputs, labels in loader:
                optimizer.zero_grad()
                loss(net(inputs), labels).backward()
                optimizer.step()
                yield len(labels)

    return partial(timed, steps)


def torchvision(setting: Setting, workers: int, flags: Flags) -> Turn:
    """In the style of torchvision's references/classification. Flags: pil or tensor, where pictures are
    resized; bfloat16: autocast, on channels-last images."""
    tensors, bfloat16 = "tensor" in flags, "bfloat16" in flags
    early = [transforms.PILToTensor()] if tensors else []
    late = [] if tensors else [transforms.PILToTensor()]
    transform = transforms.Compose(
        [
            *early,
            transforms.RandomResizedCrop(setting.size, scale=CROP, antialias=True),
            transforms.RandomHorizontalFlip(),
            *late,
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader, net = folder_and_resnet(setting, workers, transform)
    layout = torch.channels_last if bfloat16 else torch.contiguous_format
    net = net.to(memory_format=layout).train()
    criterion = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    optimizer = torch.optim.SGD(net.parameters(), nesterov=True, **SGD)

    def steps() -> Iterator[int]:
        while True:
            for inputs, labels in loader:
                inputs = inputs.to(memory_format=layout)
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    outputs = net(inputs)
                    loss = criterion(outputs, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item(), (outputs.argmax(1) == labels).float().mean().item()  # its meters, every step
                yield len(labels)

    return partial(timed, steps)


def timm_(setting: Setting, workers: int, flags: Flags) -> Turn:
    """timm's loader and the step of its train.py with --amp --amp-dtype bfloat16 --channels-last. Flags:
    prefetcher, which normalizes whole batches in the training's process (--no-prefetcher otherwise)."""
    device = torch.device(setting.device)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    images = create_dataset("", root=str(setting.folder), split="train", is_training=True)
    loader = create_loader(
        images,
        input_size=(3, setting.size, setting.size),
        batch_size=setting.batch_size,
        is_training=True,
        scale=CROP,
        color_jitter=None,  # its default would cost it time that nobody else spends
        mean=MEAN,
        std=STD,
        num_workers=workers,
        device=device,
        pin_memory=device.type == "cuda",
        use_prefetcher="prefetcher" in flags,
        persistent_workers=False,
    )
    classes = len(images.reader.class_to_idx)
    net = timm.create_model(f"resnet{setting.depth}", num_classes=classes)
    net = net.to(device, memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(net, opt="sgd", **SGD)  # its sgd is Nesterov's
    criterion = LabelSmoothingCrossEntropy(SMOOTHING)

    def steps() -> Iterator[int]:
        while True:
            for inputs, labels in loader:
                inputs, labels = inputs.to(device), labels.to(device)  # where the prefetcher has not done so
                inputs = inputs.contiguous(memory_format=torch.channels_last)
                with torch.autocast(device.type, torch.bfloat16):
                    loss = criterion(net(inputs), labels)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                yield len(labels)

    return partial(timed, steps)


def timed(steps: Callable[[], Iterator[int]], warm_up: int, count: int) -> float:
    """images/s of `count` steps of a loop that gives the images of each step it has made."""
    loop = steps()
    for _ in itertools.islice(loop, warm_up):
        pass
    wait_for_gpu()
    started = time.perf_counter()
    images = sum(itertools.islice(loop, count))
    wait_for_gpu()
    return images / (time.perf_counter() - started)


def wait_for_gpu() -> None:
    """For all that was launched on it; on a CPU everything is done when a call returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
