"""A registered model on the server: its versions, its aliases, and bringing both together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import tenacity

from imagenette.errors import InputError, RunError
from imagenette.registry.address import CHAMPION, PREVIOUS, Address
from imagenette.registry.gate import GATES, Entry, Evidence, Gate, reigns
from imagenette.tracking.client import pages, quoted
from imagenette.tracking.fetch import has_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

WITHDRAWN = "withdrawn"
"""Tag of a version that was rolled back: when."""
_PASSES = 100
_again = tenacity.retry(
    retry=tenacity.retry_if_exception(lambda error: _is_race(error)),
    stop=tenacity.stop_after_attempt(20),
    wait=tenacity.wait_random(0.02, 0.3),
    reraise=True,
)


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
        query = f"name = {quoted(self.name)}"
        found = pages(lambda token: self._client.search_model_versions(query, page_token=token))
        return sorted(found, key=lambda version: int(version.version))

    def aliases(self) -> dict[str, int]:
        from mlflow.exceptions import MlflowException

        try:
            aliases = self._client.get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: int(version) for alias, version in aliases.items()}

    def find(self, address: Address) -> ModelVersion:
        """InputError if there is no such version."""
        from mlflow.exceptions import MlflowException

        try:
            if address.alias is not None:
                return self._client.get_model_version_by_alias(self.name, address.alias)
            return self._client.get_model_version(self.name, str(address.version))
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
        what = f"model {address} is not registered"
        known = [f"/{version.version}" for version in self.all()[-5:]]
        if not known:
            raise InputError(f"{what}: `imagenette promote` registers one")
        known = [f"@{alias}" for alias in self.aliases()] + known
        raise InputError(f"{what}; {self.name} has {', '.join(known)}")

    @_again
    def register(
        self, *, source: str, run_id: str, model_id: str, tags: dict[str, str], description: str
    ) -> ModelVersion:
        """A new version, its tags with it from its first moment on."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(
                self.name, description="Image classifiers, promoted by `imagenette promote`."
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self._client.create_model_version(
            self.name,
            source,
            run_id,
            tags=cast(Any, tags),
            model_id=model_id,
            description=description,
            await_creation_for=cast(Any, 0),  # it is ready at once: nothing is copied
        )

    @_again
    def withdraw(self, version: int, when: str) -> None:
        self._client.set_model_version_tag(self.name, str(version), WITHDRAWN, when)

    def settle(self) -> Standing:
        """Set the aliases to what the versions say, until reading everything again changes nothing.

        Whoever writes an alias reads again after it. So the last write of all is followed by a reading that
        agreed with it, and had a version come later, its promoter would have written after that.
        """
        for _ in range(_PASSES):
            standing = self.standing()
            if not self._point(CHAMPION, standing.champion) and not self._point(PREVIOUS, standing.previous):
                return standing
        raise RunError(f"the aliases of {self.name} do not come to rest: someone else keeps setting them")

    def standing(self) -> Standing:
        """What the versions say."""
        numbers = [entry.version for entry in self.history()]
        return Standing(*[None, None, *numbers][:-3:-1])

    def history(self) -> list[Entry]:
        """The champions one after the other, from one reading, without those whose files were deleted (as far
        as one can tell from the last two). RunError where none has files: then the store is away."""
        versions = {int(version.version): version for version in self.all()}
        entries = [entry for version in versions.values() if (entry := as_entry(version)) is not None]
        gone: set[int] = set()
        while True:
            history = [e for e in reigns(entries, gone=gone) if e.version not in gone]
            last = (entry.version for entry in history[-2:])
            missing = {v for v in last if not has_file(self._client, versions[v].source, "MLmodel")}
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


def as_entry(version: ModelVersion) -> Entry | None:
    """None for a version that was not promoted but registered by hand."""
    tags = version.tags
    evidence = Evidence.from_tags(tags)
    if evidence is None or tags.get("gate") not in GATES:
        return None
    return Entry(
        version=int(version.version),
        evidence=evidence,
        gate=cast(Gate, tags["gate"]),
        other_data=tags.get("other_data") == "true",
        withdrawn=WITHDRAWN in tags,
    )


def _is_race(error: BaseException) -> bool:
    """Whether several promoters met in one row, or SQLite's one write lock was taken: worth another try."""
    words = ("UNIQUE constraint", "duplicate key", "database is locked", "creation error", "serialize")
    return any(word in str(error) for word in words)
