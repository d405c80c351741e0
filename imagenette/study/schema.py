"""What a study's file may hold: its tables, a knob's values, the space of a search. Each value is checked
against its knob and comes out in the knob's own type. Knows nothing of folders, cells or samplers."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from imagenette.config import KNOBS, OPERATIONAL, Config, allowed, canonical, plugin
from imagenette.errors import InputError
from imagenette.results import OBJECTIVES, Objective

PLAIN = re.compile(r"[A-Za-z0-9_-]+")
PLAIN_WORDS = "letters, digits, hyphens and underscores"

Knobs = dict[str, Any]


class Range(BaseModel):
    """Every number from low to high, both included; whole numbers where the knob takes only those."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    low: int | float
    high: int | float
    log: bool = False
    """Draw evenly in the logarithm."""
    integer: bool = False


class Choices(BaseModel):
    """One of these values, which have no order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: tuple[bool | int | float | str, ...]


class Sampling(BaseModel):
    """How a search draws, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    trials: Annotated[int, Field(ge=1)]
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["none", "median", "halving"] = "none"
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the sampler; the runs' own seed is the study's."""


class Search(Sampling):
    """A checked search. Plain data: `Search.model_validate_json` in another process gives back the one
    whose `model_dump_json()` it was sent."""

    space: dict[str, Range | Choices]
    """Knob -> what it may take, in the order written."""

    def extremes(self) -> list[Knobs]:
        """Points of the space that between them show both ends of every range and every choice."""
        spans = {k: (d.low, d.high) if isinstance(d, Range) else d.choices for k, d in self.space.items()}
        first = {knob: values[0] for knob, values in spans.items()}
        return [first | {knob: value} for knob, values in spans.items() for value in values]


# -- the tables as they are written ----------------------------------------------------------------


def _plain(name: str) -> str:
    if not PLAIN.fullmatch(name):
        raise ValueError(f"must be {PLAIN_WORDS}")
    return name


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("must be distinct")
    return seeds


Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)]


class Dimension(BaseModel):
    """A line of `[search.space]`: `{low=, high=, log=false}` or `{choices=[...]}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    low: Any = None
    high: Any = None
    log: bool = False
    choices: list[Any] | None = None


Space = Annotated[dict[str, Dimension], Field(min_length=1)]


class SearchTable(Sampling):
    """`[search]`."""

    model_config = ConfigDict(strict=True)

    space: Space


class Cut(BaseModel):
    """`[small]` or `[smoke]`: what it does not name stays as it is; keys that are not here are knobs."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    seeds: Seeds | None = None
    baseline_seeds: Seeds | None = None
    grid: dict[str, list[Any]] | None = None
    arms: list[Knobs] | None = None
    baseline: Knobs | None = None
    trials: Annotated[int, Field(ge=1)] | None = None
    space: Space | None = None

    def knobs(self, table: str) -> Knobs:
        """Over [base]'s. InputError where a key of this table is neither one of the above nor a knob."""
        for key in self.model_extra or {}:
            if key not in KNOBS:
                hint = near(key, [*Cut.model_fields, *KNOBS], "keys")
                raise InputError(f"{table}.{key}: unknown key: {hint}")
        return self.model_extra or {}


class File(BaseModel):
    """A whole study."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_plain)]
    title: Annotated[str, Field(min_length=1)]
    objective: Objective = "selected/holdout_accuracy"
    seeds: Seeds
    base: Knobs = {}
    grid: dict[str, list[Any]] | None = None
    arms: list[Knobs] | None = None
    search: SearchTable | None = None
    baseline: Knobs | None = None
    baseline_seeds: Seeds | None = None
    margin: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    target: Annotated[float, Field(gt=0, lt=1)] | None = None
    small: Cut | None = None
    smoke: Cut | None = None
    reference: list[Knobs] = []
    reference_source: str | None = None
    reference_images: Annotated[int, Field(ge=1)] | None = None


def parse(text: str) -> File:
    """The tables, whole; the knobs in them are still to be checked. InputError names the key."""
    try:
        return File.model_validate(tomllib.loads(text))
    except ValidationError as error:
        # An unknown key first: it may be what is missing, by another name.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise InputError(f"broken TOML: {error}") from None
    path = first["loc"]
    key = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    if first["type"] == "missing":
        raise InputError(f"{key}: missing")
    if first["type"] == "extra_forbidden":
        table = Dimension if "space" in path else SearchTable if "search" in path else File
        raise InputError(f"{key}: unknown key: {near(str(path[-1]), list(table.model_fields), 'keys')}")
    words = {
        "too_short": "must not be empty",
        **dict.fromkeys(("dict_type", "model_type"), "must be a table"),
    }
    message = words.get(first["type"], first["msg"])
    message = message.removeprefix("Value error, ").replace("Input should", "must")
    raise InputError(f"{key}={shown(first['input'])}: {message}")


# -- the values in them ----------------------------------------------------------------------------


def checked_search(table: SearchTable, key: str, space: dict[str, Dimension], trials: int) -> Search:
    """The search over this space, which stands at `key` of the file. InputError."""
    checked = {knob: _dimension(f"{key}.{knob}", knob, written) for knob, written in space.items()}
    return Search(**table.model_dump(exclude={"space", "trials"}), trials=trials, space=checked)


def _dimension(key: str, knob: str, written: Dimension) -> Range | Choices:
    check_varies(key, knob)
    ends = written.model_fields_set - {"choices"}
    if written.choices is not None and not ends:
        return Choices(choices=tuple(knob_values(f"{key}.choices", knob, written.choices)))
    if written.choices is not None or not {"low", "high"} <= ends:
        raise InputError(f"{key}: must be {{low=, high=, log=false}} or {{choices=[...]}}")
    kind = Config.model_fields[knob].annotation
    if kind not in (int, float):
        raise InputError(f"{key}: {knob} is {allowed(knob)}: must be {{choices=[...]}}")
    low = knob_value(f"{key}.low", knob, written.low)
    high = knob_value(f"{key}.high", knob, written.high)
    if low >= high:
        raise InputError(f"{key}.low={low}: must be < high={high}")
    if written.log and low <= 0:
        raise InputError(f"{key}.low={low}: must be > 0 with log=true")
    return Range(low=low, high=high, log=written.log, integer=kind is int)


def knob_values(key: str, knob: str, values: list[Any]) -> list[Any]:
    """What a knob takes in turn: at least one value, no two the same."""
    check_varies(key, knob)
    if not values:
        raise InputError(f"{key}=[]: must not be empty")
    typed = [knob_value(key, knob, value) for value in values]
    for value in typed:
        if typed.count(value) > 1:
            raise InputError(f"{key}={shown(values)}: {shown(value)} is there twice")
    return typed


def knob_value(key: str, knob: str, value: Any) -> Any:
    """One value in the knob's own type: weight_decay's 0 is 0.0. Whether it goes with the other knobs is for
    the whole config to tell. InputError names `key`."""
    check_known(key, knob)
    wrong = InputError(f"{key}={shown(value)}: {knob} must be {allowed(knob)}")
    try:
        typed = getattr(Config.model_validate({knob: value}), knob)
    except ValidationError:
        raise wrong from None
    if isinstance(value, bool) and not isinstance(typed, bool):  # pydantic takes true for 1
        raise wrong
    return plugin.load(typed) if knob == "plugin" else typed  # what other knobs name may be its own


def plugin_first(knobs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Knobs in the order in which their values are checked."""
    return sorted(knobs.items(), key=lambda item: item[0] != "plugin")


def figure(key: str, metric: str, value: Any) -> float:
    """A published number: a share under a metric's name, anything finite under `reference/`."""
    free = metric.startswith("reference/")
    if not free and metric not in OBJECTIVES:
        raise InputError(f"{key}: unknown metric: {near(metric, OBJECTIVES, 'metrics')} (or reference/...)")
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (free or 0 <= value <= 1):
        raise InputError(f"{key}={shown(value)}: must be a {'number' if free else 'share from 0 to 1'}")
    return float(value)


def check_known(key: str, knob: str) -> None:
    if knob == "seed":
        raise InputError(f"{key}: the seeds of a study have a key of their own: seeds = [1, 2, 3]")
    if knob not in KNOBS:
        raise InputError(f"{key}: unknown knob: {near(knob, KNOBS, 'knobs')}")


def check_varies(key: str, knob: str) -> None:
    check_known(key, knob)
    if knob in OPERATIONAL:
        raise InputError(f"{key}: {knob} leaves the result as it is, so it cannot vary: put it into base")


def near(word: str, options: Sequence[str], kind: str) -> str:
    """`did you mean batch_size?`, or all there is to choose from."""
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"the {kind} are {', '.join(options)}"


def shown(value: Any) -> str:
    """A value of a TOML file as a message shows it."""
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else canonical(value)
