"""Every knob of a training run, declared once: type, bounds, meaning, default.

A knob has one name on the command line, in `mlflow run -P`, as an MLflow param, as a study's dimension and as
a report's column; all of them read it from here.
"""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from imagenette.config import plugin as plugins
from imagenette.config.recipes import OPTIMIZERS, RECIPES


def _number(value: Any) -> Any:
    """Text as the integer that it spells: a Literal of integers takes no text, and the command line gives
    nothing else."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


OWN = ("resnet", "xresnet")
"""Architectures of this project, which have a depth; every other name is one of timm's."""

AMOUNTS = r"^(none|[A-Za-z_]\w*=\d+(\.\d+)?(,[A-Za-z_]\w*=\d+(\.\d+)?)*)$"

Depth = Annotated[Literal[18, 34, 50, 101, 152], BeforeValidator(_number)]
Auto = Literal["auto"]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Words:
    """What a knob takes, where its type does not say it."""

    text: str


class Config(BaseModel):
    """One training run, complete: the same config on the same machine gives the same weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    # -- what is trained, on what ------------------------------------------------------------------
    depth: Depth = 18
    """Layers of resnet and xresnet (random initialization); timm's networks have their own."""
    architecture: Annotated[str, Field(min_length=1)] = "resnet"
    """resnet (torchvision's), xresnet (deep stem, pooled shortcuts, blurred strides, squeeze-and-excitation),
    both of `depth`; or a network of timm's by name, whatever the depth."""
    activation: Literal["relu", "silu", "gelu", "mish"] = "relu"
    """Of xresnet and of those of timm's networks that leave the choice."""
    plugin: Annotated[str, Field(min_length=1), Words("none, a file NAME.py or a module")] = plugins.NONE
    """A Python file or module that registers networks, augmentations and optimizers of one's own; it is
    recorded with its source's SHA-256 (docs/plugins.md)."""
    data: Annotated[str, Field(min_length=1)] = "imagenette"
    """digits (ships with scikit-learn, needs no network), imagenette, imagenette-320px, imagenette-160px
    (published archives, downloaded once), or a path to a folder or archive with train/ and val/."""
    recipe: Literal[tuple(RECIPES)] = "fast"  # type: ignore[valid-type]  # the table has the names
    """Where the other knobs come from unless given: fast is these defaults; record is for the most accuracy
    at 5 or 20 epochs; paper is the reference report as written; paper-code is what its code really ran (a
    tenth of the learning rate)."""
    seed: Count = 1
    """Of the initial weights and of every epoch's order, crops and flips."""
    epochs: Positive = 16
    """Passes over the training images."""
    # A ResNet halves its input five times: below 32 px a stage sees one pixel, and there torch's bfloat16
    # convolution (2.15, CPU) leaves weight gradients unwritten that no loss would ever show.
    size: Annotated[int, Field(ge=32, le=1024)] = 128
    """Training resolution, px."""
    start_size: Annotated[int, Field(ge=0, le=1024)] = 0
    """Training resolution of the first epoch, px; it grows to `size` in steps of 16 px over the first 80 % of
    the epochs, which costs about 60 % of the time from half the size. 0 = size from the start. fast starts at
    half the size where that is 64 px or more."""
    test_size: Annotated[int, Field(ge=0, le=1024)] = 0
    """Resolution of holdout and test images, px; 0 = size."""
    holdout: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the training set kept for selection, the same images whatever the seed, and never all of a
    class; where that is none the best epoch is picked on the test set, and the run says so."""
    limit: Count = 0
    """Use only so many training images, stratified by class; 0 = all."""
    test_every: Positive = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""

    # -- optimization ------------------------------------------------------------------------------
    batch_size: Positive = 64
    """Images per optimizer step, summed over processes."""
    drop_last: bool = True
    """Leave out an epoch's last batch when it is not full."""
    optimizer: Annotated[str, Words(f"one of {', '.join(OPTIMIZERS)}, or a plugin's")] = "muon"
    """sgd with momentum; adamw; or muon, which makes the momentum of filters orthogonal and moves the rest by
    sgd. Each brings its own learning rate, weight decay and batch size unless they are given."""
    lr: Annotated[float, Field(gt=0, le=100)] = 0.05
    """Peak learning rate."""
    momentum: Share = 0.9
    """Momentum of sgd and muon; AdamW's beta1."""
    nesterov: bool = True
    """Nesterov's momentum (sgd and muon)."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    """L2 penalty of sgd, decoupled decay of adamw and muon."""
    decay_norm_bias: bool = False
    """Also decay batch-norm weights and biases."""
    schedule: Literal["onecycle", "cosine", "flat-cosine", "step", "constant"] = "onecycle"
    """Shape of the learning rate over the run: onecycle rises linearly for `warmup`, then falls to 0 on a
    cosine; cosine falls from the start; flat-cosine stays flat for 72 %; step divides by ten at 150/350
    and 250/350 of the run, the reference's epochs."""
    warmup: Share = 0.2
    """Share of all steps over which the rate rises from 0 (every schedule but step and constant)."""
    label_smoothing: Share = 0.1
    """Share of the target spread evenly over all classes."""
    grad_clip: Annotated[float, Field(ge=0)] = 0.0
    """Largest gradient norm; 0 = no clipping."""
    ema: Share = 0.0
    """Decay per step of the averaged weights that are evaluated and saved (it rises to this over the first
    steps); 0 = the weights themselves."""
    zero_init: bool = True
    """Start each residual block as the identity: its last norm's weight is 0."""
    bn_group: Count = 0
    """Images per batch-norm group; 0 = the whole batch, over all processes (timm's networks: each process its
    own). 8 at batch 32 repeats what nn.DataParallel on 4 GPUs did."""
    sync_bn: bool = False
    """No longer needed: batch norm is over all processes unless `bn_group` says otherwise."""

    # -- augmentation ------------------------------------------------------------------------------
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Smallest share of an image's area that a random crop may show; 1 = the whole image, no crop. The fast
    recipe crops less in short runs, which have no time to overfit: 0.7 at 5 epochs, 0.35 from 14 on."""
    cutmix: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of training images that show another one in a box, whose class then takes the box's share of the
    target (Yun et al. 2019; the box's area is uniform before the border cuts it). For long runs."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of training images in which a box of 2 to 33 % of the area shows the image's mean colour (random
    erasing, Zhong et al. 2020)."""
    augment: Annotated[str, Field(pattern=AMOUNTS), Words("none, or NAME=AMOUNT,...")] = plugins.NONE
    """Augmentations of the plugin, in this order, and how much of each: `gray=0.2,solarize=0.1`."""
    flip: bool = True
    """Mirror half of the training images (never digits, unless asked)."""

    # -- how it runs (does not change what is computed, up to rounding) ----------------------------
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto = cuda where there is one."""
    nproc: Auto | Positive = "auto"
    """Training processes on this machine; auto = one for each visible GPU, or 1."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Arithmetic of convolutions, and of Muon's large products, in training; weights, losses and statistics
    are float32 in both, and so is evaluation. timm's networks always train in float32 on a CPU."""
    compile: bool = False
    """Have torch.compile make the training step's kernels: minutes before the first step of each resolution,
    faster steps after it on a GPU at large batches. Needs a C++ compiler on a CPU, Triton on a GPU."""
    kernels: Literal["auto", "stock"] = "auto"
    """auto = on a CPU, gradients that torch's own kernels compute slowly in a way that is faster."""
    cudnn_benchmark: bool = False
    """On a GPU, have cuDNN try its kernels on each new shape and keep the fastest: perhaps another in each
    run."""
    deterministic: bool = False
    """On a GPU, only kernels that give the same sums each time, where torch has them (it warns of others):
    slower, and a run repeats itself bit for bit as it does on a CPU."""
    workers: Count = 0
    """Threads that crop and resize on the CPU, per process; 0 = the cores there are."""
    bad_pictures: Literal["refuse", "skip"] = "refuse"
    """What happens where pictures cannot be read: refuse names them all and stops; skip trains without them,
    says which, and the data's digest is that of the set without them."""

    @field_validator("optimizer")
    @classmethod
    def _there(cls, optimizer: str, info: ValidationInfo) -> str:
        """Whether a plugin has it shows when the plugin is loaded."""
        if optimizer not in OPTIMIZERS and info.data.get("plugin", plugins.NONE) == plugins.NONE:
            raise ValueError("there is no such optimizer")
        return optimizer

    def params(self) -> dict[str, str]:
        """Each knob as canonical text: `{"weight_decay": "0.0005", "flip": "true", ...}`."""
        return {name: canonical(getattr(self, name)) for name in type(self).model_fields}

    def digest(self) -> str:
        """16 hex digits, equal for two configs that compute the same thing.

        Only knobs that differ from NEUTRAL count. So a knob that is added later, at its default, leaves the
        digest of every earlier config as it was. Of a plugin its source counts, wherever that is."""
        defaults = {name: canonical(field.default) for name, field in type(self).model_fields.items()}
        usual = defaults | NEUTRAL
        params = self.params() | {"plugin": plugins.hash_of(self.plugin)}
        own = {k: v for k, v in params.items() if v != usual[k] and k not in OPERATIONAL}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def has_depth(self) -> bool:
        """Whether the architecture is one of OWN."""
        return self.architecture in OWN

    @property
    def augmentations(self) -> dict[str, float]:
        """The plugin's that are asked for, and how much of each."""
        pairs = [] if self.augment == plugins.NONE else self.augment.split(",")
        return {name: float(amount) for name, _, amount in (pair.partition("=") for pair in pairs)}

    @property
    def network(self) -> str:
        """What a saved model says of itself: `resnet18`, `xresnet34-silu`, `timm/resnet26d`."""
        name = f"{self.architecture}{self.depth}" if self.has_depth else f"timm/{self.architecture}"
        return name if self.activation == "relu" else f"{name}-{self.activation}"

    @property
    def eval_size(self) -> int:
        return self.test_size or self.size


KNOBS: tuple[str, ...] = tuple(Config.model_fields)
OPERATIONAL = frozenset(
    {"device", "nproc", "kernels", "cudnn_benchmark", "deterministic", "workers", "bad_pictures"}
)
"""Knobs that leave the result as it is: two configs that differ only here are the same experiment on data of
one digest."""

NEUTRAL = {
    "depth": "18",
    "architecture": "resnet",
    "activation": "relu",
    "plugin": "none",
    "data": "imagenette",
    "recipe": "fast",
    "seed": "1",
    "epochs": "16",
    "size": "128",
    "start_size": "0",
    "test_size": "0",
    "holdout": "0.1",
    "limit": "0",
    "test_every": "1",
    "batch_size": "64",
    "drop_last": "true",
    "optimizer": "muon",
    "lr": "0.05",
    "momentum": "0.9",
    "nesterov": "true",
    "weight_decay": "0.01",
    "decay_norm_bias": "false",
    "schedule": "onecycle",
    "warmup": "0.2",
    "label_smoothing": "0.1",
    "grad_clip": "0.0",
    "ema": "0.0",
    "zero_init": "true",
    "bn_group": "0",
    "sync_bn": "false",
    "crop_scale": "0.35",
    "cutmix": "0.0",
    "erase": "0.0",
    "augment": "none",
    "flip": "true",
    "precision": "bfloat16",
    "compile": "false",
}
"""What a knob must differ from to count in a config's digest. It stays when a default changes, so that the
digests of finished runs go on meaning the same. A new knob's value here is one that changes nothing."""


GROUPS = {
    "What is trained": KNOBS[: KNOBS.index("batch_size")],
    "Optimization": KNOBS[KNOBS.index("batch_size") : KNOBS.index("crop_scale")],
    "Augmentation": KNOBS[KNOBS.index("crop_scale") : KNOBS.index("device")],
    "How it runs": KNOBS[KNOBS.index("device") :],
}


def canonical(value: Any) -> str:
    """A value's one text form: `true`, `0.0005`, `18`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def allowed(name: str) -> str:
    """What a knob takes, in words: `an integer >= 1`, `one of 18, 34, 50, 101, 152`."""
    field = Config.model_fields[name]
    return _describe(field.annotation, field.metadata)


def _describe(kind: Any, bounds: list[Any]) -> str:
    for bound in bounds:
        if isinstance(bound, Words):
            return bound.text
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        return _describe(inner, [*bounds, *(b for m in more for b in getattr(m, "metadata", [m]))])
    if get_origin(kind) is Literal:
        options = [canonical(option) for option in get_args(kind)]
        return options[0] if len(options) == 1 else f"one of {', '.join(options)}"
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_describe(option, bounds) for option in get_args(kind))
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text that is not empty"}[kind]
    signs: dict[type, Callable[[Any], str]] = {
        annotated_types.Ge: lambda bound: f">= {bound.ge}",
        annotated_types.Gt: lambda bound: f"> {bound.gt}",
        annotated_types.Le: lambda bound: f"<= {bound.le}",
        annotated_types.Lt: lambda bound: f"< {bound.lt}",
    }
    limits = " and ".join(signs[type(bound)](bound) for bound in bounds if type(bound) in signs)
    return f"{words} {limits}".strip()
