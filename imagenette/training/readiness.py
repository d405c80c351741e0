"""Whether a config can be trained here: one answer for `train`, `study` and `bench`, before anything is made.

Each refusal is an InputError of one line. Imports torch only where a check needs it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import TYPE_CHECKING

from imagenette.config import Config, check_optimizer, plugin
from imagenette.errors import InputError

if TYPE_CHECKING:
    from imagenette.data import Dataset


def prepare(config: Config, processes: int, *, progress: bool = True, quiet: bool = False) -> Dataset:
    """The data set, decoded, once everything about the config and it is found to fit. quiet: another process
    says what it has that is odd."""
    from imagenette.data.sources import open_dataset, say

    check_config(config)
    check_compiler(config)
    dataset = open_dataset(
        config.data,
        side=stored_side(config),
        bad_pictures=config.bad_pictures,
        progress=progress,
        log=(lambda line: None) if quiet else say,
    )
    check_fit(config, dataset, processes)
    return dataset


def check_config(config: Config) -> None:
    """Refuse what needs no data to be refused: a plugin that is missing or another by now, parts that it does
    not have, an architecture that there is not, or for other pictures."""
    plugin.load(config.plugin)
    check_optimizer(config)
    if config.augmentations:
        from imagenette.data.augment import amounts

        amounts(config)
    if not config.has_depth:
        from imagenette.network.models import check

        sizes = {config.start_size or config.size, config.size, config.eval_size}
        check(config.architecture, sizes=sizes, activation=config.activation)


def check_compiler(config: Config) -> None:
    """InputError where the step is to be compiled and this host lacks what torch.compile calls for it."""
    if not config.compile:
        return
    import torch

    if config.device != "cpu" and torch.cuda.is_available():
        if importlib.util.find_spec("triton") is None:
            raise InputError("compile=true: torch.compile needs Triton on a GPU, and it is not installed")
    elif not shutil.which(os.environ.get("CXX") or "g++"):
        raise InputError(
            "compile=true: torch.compile needs a C++ compiler on a CPU: there is no g++ (CXX names another)"
        )


def check_fit(config: Config, dataset: Dataset, processes: int) -> None:
    """What the data set decides: whether it gives the config's batches enough images."""
    from imagenette.data.plan import split_positions

    training, _ = split_positions(dataset.train.labels, holdout=config.holdout, limit=config.limit)
    check_batches(config, images=len(training), world_size=processes)


def check_processes(config: Config, world_size: int) -> None:
    """InputError where the global batch, or its batch-norm groups, do not divide over the processes."""
    if config.batch_size % world_size:
        raise InputError(
            f"batch_size={config.batch_size} does not divide over {world_size} processes: "
            f"batch_size must be a multiple of {world_size}"
        )
    own = config.batch_size // world_size
    if world_size > 1 and config.bn_group and own % config.bn_group:
        raise InputError(
            f"bn_group={config.bn_group} does not divide the {own} images that each of {world_size} "
            f"processes has of batch_size={config.batch_size}: they would normalize otherwise than one does"
        )


def check_device(config: Config, processes: int, *, gpus: int | None = None) -> None:
    """InputError where a GPU was asked for and there is none, or fewer than processes on this host. gpus: as
    for `process_count`."""
    if config.device == "cpu" or (config.device == "auto" and processes == 1):
        return
    if gpus is None:
        import torch

        gpus = torch.cuda.device_count()
    if config.device == "cuda" and not gpus:
        raise InputError("device=cuda: torch finds no GPU here: must be cpu or auto")
    if 0 < gpus < processes:
        raise InputError(
            f"nproc={processes}: NCCL takes one process a GPU, and there "
            f"{'is 1' if gpus == 1 else f'are {gpus}'}: must be at most {gpus}, or device=cpu"
        )


def check_batches(config: Config, *, images: int, world_size: int) -> None:
    """InputError where some step would leave a process without enough images for batch norm."""
    check_processes(config, world_size)
    partial = images % config.batch_size
    last = partial if partial and not (config.drop_last and images > config.batch_size) else config.batch_size
    fewest = min(last, config.batch_size) // world_size
    size = min(config.start_size or config.size, config.size)
    pixels = (-(-size // 32)) ** 2  # a ResNet halves its input five times
    if fewest == 0:
        raise InputError(
            f"batch_size={config.batch_size}: the last batch of {images} images has {last}, fewer than the "
            f"{world_size} processes: choose another batch_size or drop_last=true"
        )
    if fewest * pixels < 2:
        raise InputError(
            f"batch_size={config.batch_size}: a batch of 1 image at size={size} has no variance to "
            f"normalize by: choose another batch_size, a larger size or drop_last=true"
        )


def process_count(config: Config, *, gpus: int | None = None) -> int:
    """nproc, with auto resolved: one process for each GPU, or 1. gpus: how many may be used; None = all that
    are visible."""
    if config.nproc != "auto":
        return config.nproc
    if config.device == "cpu":
        return 1
    if gpus is None:
        import torch

        gpus = torch.cuda.device_count()
    return max(1, gpus)


def stored_side(config: Config) -> int:
    """Side, px, at which pictures are decoded once: enough for a crop of a third of the area, in few sizes,
    so that runs of many resolutions share one cache."""
    largest = max(config.size, config.eval_size)
    return 256 if largest <= 160 else 2 * largest
