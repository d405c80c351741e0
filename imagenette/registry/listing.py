"""All registered models of this project, for a list: which version, how good, on which data, of which run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagenette.registry.lineage import moment
from imagenette.registry.versions import WITHDRAWN, Versions, is_promoted
from imagenette.results import SELECTED, SELECTED_HOLDOUT
from imagenette.stats import wilson
from imagenette.tracking.client import opened
from imagenette.tracking.lookup import promoted_versions, tags_of

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A version that was promoted."""

    name: str
    version: int
    aliases: tuple[str, ...]
    test_accuracy: float
    """Of the selected epoch, a share in [0, 1]."""
    interval: tuple[float, float]
    """Wilson's, 95 %, over the test images."""
    test_images: int
    holdout_accuracy: float | None
    data: str
    data_digest: str
    run_id: str | None
    created: str
    withdrawn: bool
    """Rolled back."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def registered(*, tracking_uri: str | None = None) -> list[Listed]:
    """By name, the newest version first. RunError if the server does not answer."""
    with opened(tracking_uri) as client:
        versions = [version for version in promoted_versions(client) if is_promoted(version)]
        aliases = {name: Versions(client, name).aliases() for name in {each.name for each in versions}}
    listed = [_listed(version, aliases[version.name]) for version in versions]
    return sorted(listed, key=lambda each: (each.name, -each.version))


def _listed(version: ModelVersion, aliases: dict[str, int]) -> Listed:
    tags, number = tags_of(version), int(version.version)
    images, share = int(tags["test_images"]), float(tags[SELECTED])
    interval = wilson(round(share * images), images)
    return Listed(
        name=version.name,
        version=number,
        aliases=tuple(sorted(alias for alias, held in aliases.items() if held == number)),
        test_accuracy=share,
        interval=(interval.low, interval.high),
        test_images=images,
        holdout_accuracy=float(tags[SELECTED_HOLDOUT]) if SELECTED_HOLDOUT in tags else None,
        data=Path(json.loads(tags["config"]).get("data", "")).name or "unknown",
        data_digest=tags["data_digest"],
        run_id=version.run_id or None,
        created=moment(int(version.creation_timestamp)),
        withdrawn=WITHDRAWN in tags,
    )
