"""A registered model on the server: its versions, its aliases, and bringing both together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from imagenette.errors import RunError
from imagenette.registry.gate import GATES, Entry, Evidence, Gate, reigns
from imagenette.tracking.address import CHAMPION, PREVIOUS
from imagenette.tracking.client import RACES, or_none, retry_on
from imagenette.tracking.fetch import has_file
from imagenette.tracking.lookup import aliases_of, tags_of, versions_of
from imagenette.tracking.provenance import UNSEEN, now

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

WITHDRAWN = "withdrawn"
"""Tag of a version that was rolled back: when."""
_MACHINERY = {
    *("test_correct", "config", "config_digest", "data_digest", "environment", "model_id", "other_data"),
    *("reproduce", "commit_dirty"),
}
"""Tags for programs, some of them a screen long: they are kept UNSEEN."""
_REGISTERED_AS = "mlflow.modelVersions"
"""MLflow's own tag of a logged model: the versions that it is registered as."""
_PASSES = 100
_again = retry_on(*RACES, "database is locked", "creation error", "serialize")  # promoters that met


@dataclass(frozen=True)
class Standing:
    """Who is champion, who was before, as version numbers; None where there is none."""

    champion: int | None
    previous: int | None


class Versions:
    """One registered model. For one thread."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client, self.name = client, name

    def all(self) -> list[ModelVersion]:
        """Every version, the oldest first; none where the model is not registered yet."""
        return versions_of(self._client, self.name)

    def aliases(self) -> dict[str, int]:
        return aliases_of(self._client, self.name)

    @_again
    def register(
        self, *, source: str, run_id: str, model_id: str, tags: dict[str, str], description: str
    ) -> ModelVersion:
        """A new version, its tags with it from its first moment on."""
        about = "Image classifiers, promoted by `imagenette promote`."
        create = partial(self._client.create_registered_model, self.name, description=about)
        or_none(create, "RESOURCE_ALREADY_EXISTS")
        tags = {(UNSEEN + key if key in _MACHINERY else key): value for key, value in tags.items()}
        return self._client.create_model_version(
            self.name,
            source,
            run_id,
            tags=cast(Any, tags),
            model_id=model_id,
            description=description,
            await_creation_for=cast(Any, 0),  # it is ready at once: nothing is copied
        )

    def link(self, model_id: str, version: int) -> None:
        """Have the logged model say that it is registered. MLflow's server does so by itself; without one
        (SQLite) it is the client's part."""
        model = self._client.get_logged_model(model_id)
        known = json.loads(model.tags.get(_REGISTERED_AS, "[]"))
        if (self.name, str(version)) not in {(entry["name"], str(entry["version"])) for entry in known}:
            known.append({"name": self.name, "version": str(version)})
            self._client.set_logged_model_tags(model_id, {_REGISTERED_AS: json.dumps(known)})

    @_again
    def withdraw(self, version: int) -> None:
        self._client.set_model_version_tag(self.name, str(version), WITHDRAWN, now())

    def settle(self) -> Standing:
        """Set the aliases to what the versions amount to, until reading everything again changes nothing.

        Whoever writes an alias reads again after it. So the last write of all is followed by a reading that
        agreed with it, and had a version come later, its promoter would have written after that.
        """
        for _ in range(_PASSES):
            previous, champion = [None, None, *(entry.version for entry in self.history())][-2:]
            if not self._point(CHAMPION, champion) and not self._point(PREVIOUS, previous):
                return Standing(champion, previous)
        raise RunError(f"the aliases of {self.name} do not come to rest: someone else keeps setting them")

    def promoted(self) -> list[Entry]:
        """Every version that was promoted, the oldest first."""
        return [entry for version in self.all() if (entry := _as_entry(version)) is not None]

    def history(self) -> list[Entry]:
        """The champions one after the other, from one reading, without those whose files were deleted (as far
        as one can tell from the last two). RunError where none has files: then the store is away."""
        entries = self.promoted()
        gone: set[int] = set()
        while True:
            history = [e for e in reigns(entries, gone=gone) if e.version not in gone]
            missing = {e.version for e in history[-2:] if not has_file(self._client, e.source, "MLmodel")}
            if not missing:
                break
            gone |= missing
        if gone and not history:
            raise RunError(f"no champion of {self.name} has files: is the store of artifacts reachable?")
        return history

    @_again
    def _point(self, alias: str, version: int | None) -> bool:
        """Whether the alias had to be moved."""
        if self.aliases().get(alias) == version:
            return False
        if version is None:
            self._client.delete_registered_model_alias(self.name, alias)
        else:
            self._client.set_registered_model_alias(self.name, alias, str(version))
        return True


def is_promoted(version: ModelVersion) -> bool:
    """Whether its tags are those of a promotion, not of somebody's own."""
    return _as_entry(version) is not None


def _as_entry(version: ModelVersion) -> Entry | None:
    """None for a version that was not promoted but registered by hand."""
    tags = tags_of(version)
    evidence = Evidence.from_tags(tags)
    if evidence is None or tags.get("gate") not in GATES:
        return None
    return Entry(
        version=int(version.version),
        evidence=evidence,
        gate=cast(Gate, tags["gate"]),
        other_data=tags.get("other_data") == "true",
        withdrawn=WITHDRAWN in tags,
        run_id=version.run_id,
        model_id=tags.get("model_id"),
        source=version.source or "",
    )
