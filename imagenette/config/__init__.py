"""What a training run is asked to do: knobs, and where their values come from.

Values are layered: the defaults (which are the `fast` recipe), then the recipe, then what the data set wants,
then what the user gives. Imports neither torch (a plugin may) nor any other folder, and refuses what it does
not know.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from imagenette.config import plugin as plugins
from imagenette.config.knobs import GROUPS, KNOBS, NEUTRAL, OPERATIONAL, OWN, Config, allowed, canonical
from imagenette.config.recipes import DATA, OPTIMIZERS, RECIPES, OfOptimizer
from imagenette.errors import InputError

__all__ = [
    "DATA",
    "GROUPS",
    "KNOBS",
    "NEUTRAL",
    "OPERATIONAL",
    "OPTIMIZERS",
    "OWN",
    "RECIPES",
    "Config",
    "OfOptimizer",
    "allowed",
    "canonical",
    "check_optimizer",
    "from_params",
    "resolve",
]


def resolve(given: Mapping[str, Any]) -> Config:
    """The whole config from the knobs that are given, as text or as values. InputError: one line on the first
    knob that is unknown or out of bounds."""
    for name in given:
        if name not in KNOBS:
            near = difflib.get_close_matches(name, KNOBS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"the knobs are {', '.join(KNOBS)}"
            raise InputError(f"unknown knob {name}={given[name]}: {hint}")
    try:
        named = Config.model_validate({k: given[k] for k in ("recipe", "data", "plugin") if k in given})
        layers = RECIPES[named.recipe] | DATA.get(named.data, {}) | dict(given)
        layers["plugin"] = plugins.load(named.plugin)
        fixed = {name: value for name, value in layers.items() if not callable(value)}
        config = Config.model_validate(fixed)
        check_optimizer(config)
        for name, derive in layers.items():
            if callable(derive):
                config = Config.model_validate(config.model_dump() | {name: derive(config)})
        return _check_together(config)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise InputError(f"{name}={error.errors()[0]['input']}: {name} must be {allowed(name)}") from None


def check_optimizer(config: Config) -> None:
    """InputError for one that neither we nor the plugin that is loaded have."""
    if config.optimizer not in OPTIMIZERS:
        raise InputError(f"optimizer={config.optimizer}: optimizer must be one of {', '.join(OPTIMIZERS)}")


def _check_together(config: Config) -> Config:
    """The config itself; InputError where its knobs contradict each other."""
    if config.start_size and not 32 <= config.start_size <= config.size:
        raise InputError(
            f"start_size={config.start_size}: start_size must be 0 or from 32 to size={config.size}"
        )
    if config.architecture == "resnet" and config.activation != "relu":
        raise InputError(
            f"activation={config.activation}: architecture=resnet has relu; choose architecture=xresnet"
        )
    if config.deterministic and config.cudnn_benchmark:
        raise InputError(
            "cudnn_benchmark=true: deterministic=true wants the same kernels in each run; choose one"
        )
    if config.architecture not in OWN and (config.bn_group or config.sync_bn):
        knob = f"bn_group={config.bn_group}" if config.bn_group else "sync_bn=true"
        raise InputError(f"{knob}: only architecture=resnet and xresnet have it, not {config.architecture}")
    return config


def from_params(params: Mapping[str, str]) -> Config | None:
    """The config of a tracked run from its params, however they are spelt; None where they are not a whole
    config of today's. Knobs that were added since have their defaults."""
    try:
        return Config.model_validate(params)
    except ValidationError:
        return None
