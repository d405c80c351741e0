"""Where a config's values come from unless they are given: the optimizers' own, the recipes, the data sets'.

A value is a constant, or a function of the `Config` so far. Knows no torch: an optimizer names its builder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimizer that `--optimizer` can name, and what it wants."""

    builder: str
    """`module:function` that makes it from parameter groups; `training.optim` has the signature."""
    lr: float
    """Peak learning rate at `batch_size`."""
    weight_decay: float
    batch_size: int


OPTIMIZERS = {
    "sgd": Optimizer(builder="imagenette.training.optim:sgd", lr=0.1, weight_decay=5e-4, batch_size=32),
    "adamw": Optimizer(builder="imagenette.training.optim:adamw", lr=0.002, weight_decay=0.05, batch_size=32),
    "muon": Optimizer(builder="imagenette.training.muon:muon", lr=0.05, weight_decay=0.01, batch_size=64),
}
"""Every optimizer. The knob's choices, the recipes' values and the builders all come from this table."""


@dataclass(frozen=True)
class OfOptimizer:
    """A value that the config's optimizer brings; `instead` has a recipe's own for some of them."""

    knob: str
    instead: Mapping[str, Any] = field(default_factory=dict)

    def value(self, optimizer: str) -> Any:
        return self.instead.get(optimizer, getattr(OPTIMIZERS[optimizer], self.knob))

    def __call__(self, config: Any) -> Any:
        return self.value(config.optimizer)

    def __str__(self) -> str:
        """`0.1 for sgd, 0.002 for adamw, 0.05 for muon`"""
        return ", ".join(f"{self.value(name)} for {name}" for name in OPTIMIZERS)


PAPER: dict[str, Any] = {
    "epochs": 350,
    "size": 256,
    "start_size": 0,
    "batch_size": 32,
    "drop_last": False,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 5e-4,
    "decay_norm_bias": True,
    "schedule": "step",
    "label_smoothing": 0.0,
    "zero_init": False,
    "bn_group": lambda config: max(config.batch_size // 4, 1),  # nn.DataParallel over 4 GPUs
    "crop_scale": 0.08,  # RandomResizedCrop's default
    "holdout": 0.0,  # the report trained on every training image and picked the epoch on the test set
    "precision": "float32",
}
"""The reference report as written."""

FAST: dict[str, Any] = {
    # Muon orthogonalizes filters alone; nearly all of a transformer or a ConvNeXt is linear layers.
    "optimizer": lambda config: "muon" if config.has_depth else "adamw",
    "batch_size": OfOptimizer("batch_size"),
    "lr": OfOptimizer("lr"),
    "weight_decay": OfOptimizer("weight_decay"),
    "crop_scale": lambda config: max(0.35, round(0.9 - 0.04 * config.epochs, 2)),
    "start_size": lambda config: half if (half := 16 * round(config.size / 32)) >= 64 else 0,
}
"""The defaults of `Config`, and what of them depends on other knobs; each sees those derived before it."""

RECORD: dict[str, Any] = FAST | {
    "architecture": "xresnet",
    "activation": "silu",
    "epochs": 5,
    "start_size": 0,
    "lr": OfOptimizer("lr", instead={"muon": 0.1}),
}
"""For the public leaderboard's 128 px, 5 and 20 epochs; benchmarks/HISTORY.md has what each part gives."""

RECIPES: dict[str, dict[str, Any]] = {
    "fast": FAST,
    "record": RECORD,
    "paper": PAPER,
    "paper-code": PAPER | {"lr": 0.1 / 10},  # its LambdaLR multiplied the rate by the rates that were meant
}

DATA: dict[str, dict[str, Any]] = {
    # 8 x 8 px. A mirrored digit is another sign; Muon would cost several times what the network does.
    "digits": {"size": 32, "flip": False, "crop_scale": 0.6, "optimizer": "sgd"},
}
