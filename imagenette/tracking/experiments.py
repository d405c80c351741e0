"""In which experiments a verb looks for this project's runs: in the one that is named, else in all of them.

`mlflow run .` files its run in MLflow's `Default` unless it is told otherwise, all other commands in
`imagenette`; whoever asks for a run need not know which of them made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from imagenette.errors import InputError
from imagenette.tracking.client import pages
from imagenette.tracking.environment import EXPERIMENT, outer_experiment_id
from imagenette.tracking.runs import UID

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

OURS = f"tags.`{UID}` LIKE '%'"
"""MLflow's filter for runs that this project recorded."""
OLDEST_FIRST, NEWEST_FIRST = "attributes.start_time ASC", "attributes.start_time DESC"
_DEFAULT = "0"
"""MLflow's own experiment, which `mlflow run` takes where it is told none."""


def look_in(client: MlflowClient, experiment: str | None) -> dict[str, str]:
    """Id -> name of each experiment to look in. InputError where the named one is not there, or deleted.

    experiment: a name; None = the one that `mlflow run` was told, else every active one.
    """
    outer = None if experiment else outer_experiment_id()
    if experiment is None and outer in (None, _DEFAULT):
        found = pages(lambda token: client.search_experiments(page_token=token))
        return {str(each.experiment_id): each.name for each in found}
    named = client.get_experiment(outer) if outer else client.get_experiment_by_name(str(experiment))
    if named is None or named.lifecycle_stage != "active":
        there = "deleted" if named else "not"
        raise InputError(f"experiment {experiment or outer!r} is {there} on {client.tracking_uri}")
    return {str(named.experiment_id): named.name}


def holding_runs(client: MlflowClient, experiment: str | None) -> dict[str, str]:
    """Those of them that hold runs of this project, the one with the newest run first."""
    places = look_in(client, experiment)
    newest = {
        number: runs[0].info.start_time
        for number in places
        if (runs := client.search_runs([number], OURS, max_results=1, order_by=[NEWEST_FIRST]))
    }
    return {number: places[number] for number in sorted(newest, key=lambda one: -newest[one])}


def search(client: MlflowClient, places: Mapping[str, str], query: str, *order: str) -> Iterator[Run]:
    """Runs of these experiments, page by page; in this order, else the oldest first."""
    by = list(order or [OLDEST_FIRST])
    if places:
        yield from pages(lambda token: client.search_runs(list(places), query, order_by=by, page_token=token))


def elsewhere(name: str) -> str:
    """` in experiment 'NAME'`, to be put behind a run or a study; nothing where it is the usual one."""
    return "" if name == EXPERIMENT else f" in experiment {name!r}"
