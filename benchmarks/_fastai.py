"""fastai's own training loop, for `peers.py`. Apart from `_loops.py` because fastai is no dependency of the
project. fastai owns its loop, so a callback measures the time."""

from __future__ import annotations

import time
from functools import partial

import torch
from _loops import CROP, SGD, SMOOTHING, Flags, Setting, Turn
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback, CancelFitException
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import OptimWrapper
from fastai.vision.augment import FlipItem, RandomResizedCrop
from fastai.vision.data import ImageDataLoaders
from torchvision import models

from imagenette.data.dataset import MEAN, STD


def fastai(setting: Setting, workers: int, flags: Flags) -> Turn:
    """Learner.fit. Flags: channels-last, its callback; bfloat16, a callback of ours (see Bfloat16)."""
    loaders = ImageDataLoaders.from_folder(
        setting.folder,
        valid="val",
        bs=setting.batch_size,
        num_workers=workers,
        device=torch.device("cpu"),
        item_tfms=[RandomResizedCrop(setting.size, min_scale=CROP[0]), FlipItem()],
        batch_tfms=[Normalize.from_stats(MEAN, STD, cuda=False)],
    )
    learner = Learner(
        loaders,
        getattr(models, f"resnet{setting.depth}")(num_classes=loaders.c),
        loss_func=CrossEntropyLossFlat(label_smoothing=SMOOTHING),
        opt_func=partial(OptimWrapper, opt=torch.optim.SGD, momentum=SGD["momentum"], nesterov=True),
        lr=SGD["lr"],
        wd=SGD["weight_decay"],
        cbs=[ChannelsLast()] * ("channels-last" in flags) + [Bfloat16()] * ("bfloat16" in flags),
    )

    def turn(warm_up: int, count: int) -> float:
        clock = Clock(warm_up, count)
        with learner.no_bar(), learner.no_logging():
            learner.fit(1, cbs=clock)
        if not clock.images_per_second:
            raise ValueError(f"{warm_up} + {count} steps are more than an epoch has ({len(loaders.train)})")
        return clock.images_per_second

    return turn


class Clock(Callback):
    """Measures some steps after some others, then ends the fit."""

    def __init__(self, warm_up: int, count: int) -> None:
        self.warm_up, self.count, self.steps_made, self.images_seen = warm_up, count, 0, 0
        self.images_per_second = 0.0

    def after_batch(self) -> None:
        self.steps_made += 1
        if self.steps_made == self.warm_up:
            self.began = time.perf_counter()
        elif self.steps_made > self.warm_up:
            self.images_seen += len(self.learn.xb[0])
        if self.steps_made == self.warm_up + self.count:
            self.images_per_second = self.images_seen / (time.perf_counter() - self.began)
            raise CancelFitException


class Bfloat16(Callback):
    """What fastai's MixedPrecision does on a GPU: it asks for CUDA by name (2.8), so that its bf16 mode on a
    CPU computes in float32."""

    order = 10  # MixedPrecision's

    def before_batch(self) -> None:
        self.autocast = torch.autocast("cpu", torch.bfloat16)
        self.autocast.__enter__()

    def after_pred(self) -> None:
        self.learn.pred = self.learn.pred.float()

    def after_loss(self) -> None:
        self.autocast.__exit__(None, None, None)
