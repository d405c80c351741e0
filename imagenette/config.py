"""Every knob of a training run, once: type, bounds, meaning, default. Refuses what it does not know.

A knob has one name on the command line, in `mlflow run -P`, as an MLflow param, as a study's dimension
and as a report's column. Values are layered: the defaults here (which are the `fast` recipe), then the
recipe, then what the data set asks for, then what the user said.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from imagenette.errors import InputError


def _number(value: Any) -> Any:
    """A Literal of integers takes no text; the command line has nothing else."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


OWN = ("resnet", "xresnet")
"""Architectures of a depth; every other name is one of timm's."""

Depth = Annotated[Literal[18, 34, 50, 101, 152], BeforeValidator(_number)]
Auto = Literal["auto"]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


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
    data: Annotated[str, Field(min_length=1)] = "imagenette"
    """digits (ships with scikit-learn, needs no network), imagenette, imagenette-320px, imagenette-160px
    (published archives, downloaded once), or a path to a folder or archive with train/ and val/."""
    recipe: Literal["fast", "record", "paper", "paper-code"] = "fast"
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
    """Share of the training set kept for selection, the same images whatever the seed; with 0 the best
    epoch is picked on the test set, and the run says so."""
    limit: Count = 0
    """Use only so many training images, stratified by class; 0 = all."""
    test_every: Positive = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""

    # -- optimization ------------------------------------------------------------------------------
    batch_size: Positive = 64
    """Images per optimizer step, summed over processes."""
    drop_last: bool = True
    """Leave out an epoch's last batch when it is not full."""
    optimizer: Literal["sgd", "adamw", "muon"] = "muon"
    """sgd with momentum, adamw, or muon: momentum made orthogonal, for filters; sgd for the rest."""
    lr: Annotated[float, Field(gt=0, le=100)] = 0.05
    """Peak learning rate. fast has 0.05 for muon (record 0.1), 0.1 for sgd, 0.002 for adamw."""
    momentum: Share = 0.9
    """Momentum of sgd and muon; AdamW's beta1."""
    nesterov: bool = True
    """Nesterov's momentum (sgd and muon)."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    """L2 penalty of sgd, decoupled decay of adamw and muon. fast and record have 0.01 for muon, 0.0005 for
    sgd, 0.05 for adamw."""
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
    """Images per batch-norm group; 0 = the whole per-process batch. 8 at batch 32 repeats what
    nn.DataParallel on 4 GPUs did."""
    sync_bn: bool = False
    """Batch-norm statistics over all processes instead of each its own."""

    # -- augmentation ------------------------------------------------------------------------------
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Smallest share of an image's area that a random crop may show; 1 = the whole image, no crop. The fast
    recipe crops less in short runs, which have no time to overfit: 0.7 at 5 epochs, 0.35 from 14 on."""
    cutmix: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of training images that show another one in a box, whose class then takes the box's share of the
    target (Yun et al. 2019; the box's area is uniform before the border cuts it). For long runs."""
    flip: bool = True
    """Mirror half of the training images (never digits, unless asked)."""

    # -- how it runs (does not change what is computed, up to rounding) ----------------------------
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto = cuda where there is one."""
    nproc: Auto | Positive = "auto"
    """Training processes on this machine; auto = one for each visible GPU, or 1."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Arithmetic of convolutions, and of Muon's large products, in training; weights, losses and statistics
    are float32 in both, and so is evaluation. timm's networks train in float32 on a CPU whatever is asked."""
    workers: Count = 0
    """Threads that crop and resize on the CPU, per process; 0 = the cores there are."""

    def params(self) -> dict[str, str]:
        """Each knob as canonical text: `{"weight_decay": "0.0005", "flip": "true", ...}`."""
        return {name: canonical(getattr(self, name)) for name in KNOBS}

    def digest(self) -> str:
        """16 hex digits, equal for two runs that compute the same thing."""
        same = {name: text for name, text in self.params().items() if name not in OPERATIONAL}
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def network(self) -> str:
        """What a saved model says of itself: `resnet18`, `xresnet34-silu`, `timm/resnet26d`."""
        name = f"{self.architecture}{self.depth}" if self.architecture in OWN else f"timm/{self.architecture}"
        return name if self.activation == "relu" else f"{name}-{self.activation}"

    @property
    def eval_size(self) -> int:
        return self.test_size or self.size


KNOBS: tuple[str, ...] = tuple(Config.model_fields)
OPERATIONAL = frozenset({"device", "nproc", "workers"})
"""Knobs that leave the result as it is: two configs that differ only here are the same experiment."""

GROUPS = {
    "What is trained": KNOBS[: KNOBS.index("batch_size")],
    "Optimization": KNOBS[KNOBS.index("batch_size") : KNOBS.index("crop_scale")],
    "Augmentation": KNOBS[KNOBS.index("crop_scale") : KNOBS.index("device")],
    "How it runs": KNOBS[KNOBS.index("device") :],
}

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
    "holdout": 0.0,  # it trained on every training image and picked the epoch on the test set
    "precision": "float32",
}
"""The reference report as written."""

FAST: dict[str, Any] = {
    # Muon is for filters: a transformer or a ConvNeXt, nearly all linear layers, it would leave to plain SGD
    "optimizer": lambda config: "muon" if config.architecture in OWN else "adamw",
    "batch_size": lambda config: 64 if config.optimizer == "muon" else 32,
    "lr": lambda config: {"muon": 0.05, "sgd": 0.1, "adamw": 0.002}[config.optimizer],
    "weight_decay": lambda config: {"muon": 0.01, "sgd": 5e-4, "adamw": 0.05}[config.optimizer],
    "crop_scale": lambda config: max(0.35, round(0.9 - 0.04 * config.epochs, 2)),
    "start_size": lambda config: half if (half := 16 * round(config.size / 32)) >= 64 else 0,
}
"""The defaults above, and what of them depends on other knobs; each sees those derived before it."""

RECORD: dict[str, Any] = FAST | {
    "architecture": "xresnet",
    "activation": "silu",
    "epochs": 5,
    "start_size": 0,
    "lr": lambda config: 0.1 if config.optimizer == "muon" else FAST["lr"](config),
}
"""Against the public leaderboard's 128 px, 5 and 20 epochs: benchmarks/README.md has what each part gives."""

RECIPES: dict[str, dict[str, Any]] = {
    "fast": FAST,
    "record": RECORD,
    "paper": PAPER,
    "paper-code": PAPER | {"lr": 0.1 / 10},  # its LambdaLR multiplied the rate by the rates that were meant
}

DATA: dict[str, dict[str, Any]] = {
    # 8 x 8 px; a mirrored digit is another sign; Muon's arithmetic would be several times the network's
    "digits": {"size": 32, "flip": False, "crop_scale": 0.6, "optimizer": "sgd"},
}


def resolve(given: Mapping[str, Any]) -> Config:
    """The whole config from what was said, as text or as values. InputError: one line on the first knob
    that is unknown or out of bounds."""
    for name in given:
        if name not in KNOBS:
            near = difflib.get_close_matches(name, KNOBS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"the knobs are {', '.join(KNOBS)}"
            raise InputError(f"unknown knob {name}={given[name]}: {hint}")
    try:
        named = Config.model_validate({k: given[k] for k in ("recipe", "data") if k in given})
        layers = RECIPES[named.recipe] | DATA.get(named.data, {}) | dict(given)
        fixed = {name: value for name, value in layers.items() if not callable(value)}
        config = Config.model_validate(fixed)
        for name, derive in layers.items():
            if callable(derive):
                config = Config.model_validate(config.model_dump() | {name: derive(config)})
        return _agreeing(config)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise InputError(f"{name}={error.errors()[0]['input']}: {name} must be {allowed(name)}") from None


def _agreeing(config: Config) -> Config:
    """The config, where its knobs go together; InputError where they do not."""
    if config.start_size and not 32 <= config.start_size <= config.size:
        raise InputError(
            f"start_size={config.start_size}: start_size must be 0 or from 32 to size={config.size}"
        )
    if config.architecture == "resnet" and config.activation != "relu":
        raise InputError(
            f"activation={config.activation}: architecture=resnet has relu; choose architecture=xresnet"
        )
    if config.architecture not in OWN and (config.bn_group or config.sync_bn):
        knob = f"bn_group={config.bn_group}" if config.bn_group else "sync_bn=true"
        raise InputError(f"{knob}: only architecture=resnet and xresnet have it, not {config.architecture}")
    return config


def canonical(value: Any) -> str:
    """A value's one text form: `true`, `0.0005`, `18`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def allowed(name: str) -> str:
    """What a knob takes, in words: `an integer >= 1`, `one of 18, 34, 50, 101, 152`."""
    field = Config.model_fields[name]
    return _describe(field.annotation, field.metadata)


def _describe(kind: Any, bounds: list[Any]) -> str:
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
