"""What a person names, found on the server: a run by its id, the beginning of that, or its name; a registered
model's version. What is not there, or could be several, is an InputError that says what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from imagenette.errors import InputError
from imagenette.tracking.address import CHAMPION, Address
from imagenette.tracking.client import or_none, pages, quoted
from imagenette.tracking.provenance import unprefixed
from imagenette.tracking.runs import get_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


_ID, _BEGINNING = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{6,31}")
_MOST = 5  # that a message names
_NONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the latter of a name that none can have


def find_run(client: MlflowClient, experiments: list[str], text: str) -> Run | None:
    """The run of that id, in whatever experiment; else the one of these experiments whose id begins so, in
    six characters or more, or that is called so. Deleted ones are found by their id. None where there is
    none."""
    if _ID.fullmatch(text) and (known := get_run(client, text)):
        return known
    called = f"attributes.run_name = {quoted(text)}"
    found = {run.info.run_id: run for run in _search(client, experiments, called)}
    if _BEGINNING.fullmatch(text):
        begin = _search(client, experiments, f"attributes.run_id LIKE '{text}%'", deleted=True)
        found |= {run.info.run_id: run for run in begin}
    if len(found) > 1:
        named = [f"{run_id} ({run.info.run_name})" for run_id, run in found.items()]
        more = f" and {len(named) - _MOST} more" if len(named) > _MOST else ""
        raise InputError(
            f"{text} may be {len(found)} runs: {', '.join(named[:_MOST])}{more}: name one by its id"
        )
    return next(iter(found.values()), None)


def _search(
    client: MlflowClient, experiments: list[str], query: str, *, deleted: bool = False
) -> Iterator[Run]:
    from mlflow.entities import ViewType

    view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    yield from pages(lambda token: client.search_runs(experiments, query, view, page_token=token))


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Every version of a registered model, the oldest first; none where it is not registered."""
    query = f"name = {quoted(name)}"
    found = pages(lambda token: client.search_model_versions(query, page_token=token))
    return sorted(found, key=lambda version: int(version.version))


def promoted_versions(client: MlflowClient) -> list[ModelVersion]:
    """Of every registered model those that this project promoted: they carry their gate."""
    return list(pages(lambda token: client.search_model_versions("tags.gate LIKE '%'", page_token=token)))


def tags_of(version: ModelVersion) -> dict[str, str]:
    """A version's tags by the names that they were registered with; of older versions all were seen."""
    return unprefixed(version.tags)


def aliases_of(client: MlflowClient, name: str) -> dict[str, int]:
    model = or_none(lambda: client.get_registered_model(name))
    return {alias: int(version) for alias, version in model.aliases.items()} if model else {}


def version_at(client: MlflowClient, address: Address) -> ModelVersion | None:
    """The version at that address; None where there is no such version, alias or model.

    The model is asked for first, and by itself: a server with MLflow's basic auth answers a question for an
    alias, or a version, of a model that is not there with 403."""
    model = or_none(lambda: client.get_registered_model(address.name), *_NONE)
    number = address.version if address.alias is None else model and model.aliases.get(address.alias)
    if model is None or number is None:
        return None
    return or_none(lambda: client.get_model_version(address.name, str(number)), *_NONE)


def find_version(client: MlflowClient, address: Address) -> ModelVersion:
    """InputError if there is no such version."""
    found = version_at(client, address)
    if found is not None:
        return found
    known = [f"/{version.version}" for version in versions_of(client, address.name)[-_MOST:]]
    if not known:
        others = sorted({each.name for each in promoted_versions(client)})
        hint = "`imagenette models` lists them" if others else "`imagenette promote` registers one"
        hint = f"did you mean {others[0]}@{CHAMPION}?" if len(others) == 1 else hint
        raise InputError(f"model {address} is not registered: {hint}")
    known = [f"@{alias}" for alias in aliases_of(client, address.name)] + known
    raise InputError(f"model {address} is not registered; {address.name} has {', '.join(known)}")
