"""A study as its parent run carries it, in `study/outline.json`: enough for a table of its runs, without the
TOML file, the code or the database that the study was run with."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imagenette.errors import InputError

Value = bool | int | float | str

OUTLINE = "outline.json"


class StudyPlan(BaseModel):
    """What was planned."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str
    title: str
    objective: str
    """A metric's name; maximized."""
    seeds: tuple[int, ...]
    arms: dict[str, dict[str, Value]] = {}
    """Arm -> what varies in it, in the study's order; empty for a search."""
    baseline: str | None = None
    """The arm that the others are compared with."""
    baseline_seeds: tuple[int, ...] = ()
    """All of the baseline's; empty where it has no others than `seeds`."""
    base: dict[str, Value] = {}
    """Knobs that every cell shares, overrides included; the recipe filled in the others."""
    overrides: dict[str, Value] = {}
    """Those of them that a smaller form or the command line put over the definition's own: published numbers
    are then shown, not compared with."""
    references: dict[str, dict[str, float]] = {}
    """Arm -> metric -> what was published for it; accuracies are shares in [0, 1]."""
    reference_source: str | None = None
    reference_images: Annotated[int, Field(ge=1)] | None = None
    """Test images behind each published accuracy."""
    margin: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    """Differences of accuracy below it are practically none."""
    target: Annotated[float, Field(gt=0, lt=1)] | None = None
    """A test accuracy, for the epochs and the time that it takes."""

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """The seeds that this arm is trained with."""
        return self.baseline_seeds if self.baseline_seeds and arm == self.baseline else self.seeds

    @classmethod
    def read(cls, text: str) -> Self:
        """InputError if it is not the file of a plan."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "the file"
            raise InputError(f"{OUTLINE}: {key}: {first['msg'].lower()}") from None
