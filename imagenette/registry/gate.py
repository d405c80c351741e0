"""Which version is the champion: a pure function of the versions, in the order of their numbers.

The registry's versions are the events and their tags the evidence; whoever reads the same versions comes to
the same decision. So promoters need no lock: they register, then set the alias to what this function returns
until nothing changes any more.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from imagenette.stats import McNemar, mcnemar

Gate = Literal["better", "significant", "force"]
GATES: tuple[Gate, ...] = get_args(Gate)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """All that the gate looks at. Kept as tags of the version."""

    metric: str
    """The selection metric's name."""
    value: float
    """A share in [0, 1]."""
    data_digest: str
    correct: npt.NDArray[np.bool_]
    """[n] whether the model has each test image right, in the split's order."""

    def to_tags(self) -> dict[str, str]:
        bits = zlib.compress(np.packbits(self.correct).tobytes())
        return {
            "selection_metric": self.metric,
            "selection_value": repr(self.value),
            "data_digest": self.data_digest,
            "test_images": str(len(self.correct)),
            "test_correct": base64.b64encode(bits).decode(),
        }

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Evidence | None:
        """None where they are not those of a promoted version."""
        try:
            count = int(tags["test_images"])
            bits = np.frombuffer(zlib.decompress(base64.b64decode(tags["test_correct"])), dtype=np.uint8)
            return cls(
                metric=tags["selection_metric"],
                value=float(tags["selection_value"]),
                data_digest=tags["data_digest"],
                correct=np.unpackbits(bits, count=count).astype(bool),
            )
        except (KeyError, ValueError, zlib.error):
            return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """A version that was promoted."""

    version: int
    evidence: Evidence
    gate: Gate
    """What it was promoted under."""
    other_data: bool = False
    """Whether it may take the place of a champion of other data."""
    withdrawn: bool = False
    """Rolled back."""
    run_id: str | None = None
    model_id: str | None = None
    source: str = ""
    """Where its files are."""


@dataclass(frozen=True)
class Verdict:
    allowed: bool
    reason: str
    """A sentence, either way."""


def judge(candidate: Evidence, champion: Evidence | None, gate: Gate, *, other_data: bool = False) -> Verdict:
    """Whether the candidate may take the champion's place."""
    if champion is None:
        return Verdict(True, "there is no champion yet")
    same = candidate.data_digest == champion.data_digest
    if not same and not other_data:
        return Verdict(
            False,
            f"it was trained on other data (digest {candidate.data_digest[:8]}) than the champion "
            f"({champion.data_digest[:8]}): --name registers it beside, --other-data allows it in this place",
        )
    paired = same and len(candidate.correct) == len(champion.correct)
    test = mcnemar(candidate.correct, champion.correct) if paired else None
    against = f"; against the champion: {test}" if test else "; their test images cannot be paired"
    if gate == "force":
        return Verdict(True, f"forced{against}")
    if candidate.metric != champion.metric:
        return Verdict(
            False, f"its {candidate.metric} and the champion's {champion.metric} cannot be compared"
        )
    figures = f"its {candidate.metric} {candidate.value:.4f}, the champion's {champion.value:.4f}"
    if not candidate.value > champion.value:
        return Verdict(False, f"it is not better than the champion: {figures}{against}")
    return _weigh(gate, test, f"{figures}{against}")


def _weigh(gate: Gate, test: McNemar | None, reason: str) -> Verdict:
    """The verdict on a candidate with the higher figure, by the test."""
    if test is not None and test.significantly_worse:
        return Verdict(False, f"it is significantly worse on the test images: {reason}")
    if gate == "significant" and not (test is not None and test.significantly_better):
        return Verdict(False, f"it is not significantly better on the test images: {reason}")
    return Verdict(True, reason)


def reigns(entries: Sequence[Entry], *, gone: Collection[int] = ()) -> list[Entry]:
    """The champions one after the other, the last being champion now.

    entries: in the order of their versions. gone: versions whose files were deleted. They did reign, so
    whoever took their place keeps it; but nobody need beat one that cannot be loaded any more.
    """
    history: list[Entry] = []
    for entry in entries:
        rivals = history[-1:]
        if rivals and rivals[0].version in gone:
            rivals += [past for past in history if past.version not in gone][-1:]
        allowed = (
            judge(entry.evidence, rival.evidence, entry.gate, other_data=entry.other_data).allowed
            for rival in rivals
        )
        if not entry.withdrawn and (not rivals or any(allowed)):
            history.append(entry)
    return history
