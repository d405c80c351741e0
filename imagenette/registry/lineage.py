"""From a registered model back to where it comes from: run, study, commit, data, environment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from imagenette.results import SUMMARY
from imagenette.tracking.address import CHAMPION, NAME, Address
from imagenette.tracking.client import opened
from imagenette.tracking.lookup import aliases_of, find_version, tags_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What a version's tags hold; None where it was registered by hand and lacks them."""

    name: str
    version: int
    aliases: tuple[str, ...]
    created: int
    """Milliseconds since 1970."""
    source: str
    """Where its files are."""
    run_id: str | None
    model_id: str | None
    arm: str | None
    study: str | None
    trial: str | None
    seed: str | None
    metrics: dict[str, float]
    """`selected/test_accuracy`, ...: shares in [0, 1]."""
    selection_metric: str | None
    gate: str | None
    verdict: str | None
    """Why the gate let it in, with the test against the champion of the time."""
    withdrawn: str | None
    """When it was rolled back."""
    commit: str | None
    commit_dirty: bool | None
    """Whether files differed from that commit."""
    data_digest: str | None
    config_digest: str | None
    environment: str | None
    reproduce: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) for a table; what is not known is left out."""
        shown = self.to_json()
        metrics = shown.pop("metrics")
        shown["created"] = moment(self.created)
        shown["aliases"] = ", ".join(self.aliases)
        if self.commit and self.commit_dirty:
            shown["commit"] = f"{self.commit} (with changes that were not committed)"
        del shown["commit_dirty"], shown["reproduce"]  # a command is no cell of a table
        rows = [(name, str(value)) for name, value in shown.items() if value not in (None, "")]
        return rows + [
            (name, f"{value:.4f}" if "acc" in name else f"{value:g}") for name, value in metrics.items()
        ]


def lineage(address: str = f"{NAME}@{CHAMPION}", *, tracking_uri: str | None = None) -> Lineage:
    """Look a registered model up. InputError if there is none of that name, RunError for a dead server."""
    with opened(tracking_uri) as client:
        return look_up(client, Address.parse(address))


def look_up(client: MlflowClient, address: Address) -> Lineage:
    return _of(find_version(client, address), aliases_of(client, address.name))


def _of(version: ModelVersion, aliases: dict[str, int]) -> Lineage:
    tags = tags_of(version)
    number = int(version.version)
    known: dict[str, Any] = {
        "name": version.name,
        "version": number,
        "aliases": tuple(sorted(alias for alias, held in aliases.items() if held == number)),
        "created": int(version.creation_timestamp),
        "source": version.source or "",
        "run_id": version.run_id or None,
        "metrics": {name: float(tags[name]) for name in sorted(tags) if name.startswith(SUMMARY)},
        "commit_dirty": tags["commit_dirty"] == "true" if "commit_dirty" in tags else None,
    }
    return Lineage(**{field.name: tags.get(field.name) for field in fields(Lineage)} | known)


def moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
