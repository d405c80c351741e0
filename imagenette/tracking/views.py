"""What MLflow's pages show first: views of an experiment, kept as its tags, and the links that open them.

MLflow opens an experiment on all of its runs in the order of their time, without an accuracy. A tag
`mlflow.sharedViewState.KEY` holds the state of a page as its own "share" button stores it: columns, order,
filter, groups, charts. Servers that know no such tag, and those that refuse it, show what they always show.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, build_opener

from imagenette.results import SELECTED
from imagenette.tracking.client import quoted
from imagenette.tracking.environment import pages_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEADERBOARD = "leaderboard"
_TAG = "mlflow.sharedViewState."
_STUDY = "study-"
_TRAINING = "workflowType=machine_learning"
"""Asks for MLflow's pages of trainings, not its pages of language models."""
_LIMIT = 5000  # characters of an experiment's tag
_COMPARED = ("depth", "batch_size", "weight_decay", "lr", "optimizer", "size", "epochs", "seed")
_RUN_NAME = "attributes.`Run Name`"
_SECTIONS = {"test": True, "holdout": True, "train": True, "selected": True, "final": False, "best": False}
"""How the names of metrics begin, in the order of their charts; whether these are unfolded."""


def leaderboard() -> str:
    """Finished trainings, the most accurate first: the state of MLflow's page as it keeps it."""
    return _state(
        where="attributes.status = 'FINISHED' and tags.role != 'study' and tags.role != 'launcher' and "
        "tags.role != 'reused'",
        columns=[_metric(SELECTED), *map(_param, _COMPARED)],
    )


def of_study(study: str, knobs: Iterable[str]) -> str:
    """A study's runs in their arms, each with its mean. knobs: what varies. InputError of a name that
    MLflow's filters cannot hold."""
    return _state(
        where=f"tags.study = {quoted(study)} and tags.role != 'study'",
        columns=[_metric(SELECTED), *map(_param, knobs), _param("seed")],
        groupBy={"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "arm"}]},
        useGroupedValuesInCharts=True,
    )


def key_of_study(study: str) -> str:
    """A tag's name takes fewer signs than a study's; no two studies share one."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", study)[:80]
    unique = plain if plain == study else f"{plain}-{hashlib.sha256(study.encode()).hexdigest()[:8]}"
    return _STUDY + unique


def studies(client: MlflowClient, experiment_id: str) -> dict[str, str]:
    """Name -> key of each study that has a view in an experiment, in the order of the alphabet. A name that a
    tag cannot hold stands as its key has it."""
    start = _TAG + _STUDY
    keys = sorted(tag for tag in client.get_experiment(experiment_id).tags if tag.startswith(start))
    return {key.removeprefix(start): key.removeprefix(_TAG) for key in keys}


def keep(client: MlflowClient, experiment_id: str, views: dict[str, str]) -> None:
    """Make or renew views of an experiment, key -> state. What the server refuses is left out: nothing but
    the look of its pages depends on it."""
    with suppress(Exception):
        known = client.get_experiment(experiment_id).tags
        for key, state in views.items():
            if known.get(_TAG + key) != state and len(state) <= _LIMIT:
                client.set_experiment_tag(experiment_id, _TAG + key, state)


def path(experiment_id: str, key: str = LEADERBOARD, *, charts: bool = False) -> str:
    """Where a view stands in MLflow's pages: a link for a description."""
    mode = "&compareRunsMode=CHART" * charts
    state = f"{_TRAINING}&viewStateShareKey={quote(key)}{mode}"
    return f"#/experiments/{experiment_id}/runs?{state}"


def link(uri: str, experiment_id: str, key: str = LEADERBOARD) -> str | None:
    """The address that opens a view, where IMAGENETTE_PAGES_URI says else at uri; None of a store without
    pages."""
    return _page(uri, path(experiment_id, key))


def link_here(uri: str, experiment: str) -> str | None:
    """The address of an experiment's leaderboard on a server of this machine; None where it does not know the
    experiment yet. Costs no import of MLflow."""
    query = f"api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(experiment)}"
    direct = build_opener(ProxyHandler({}))
    with suppress(OSError, ValueError, KeyError), direct.open(f"{uri}/{query}", timeout=5) as answer:
        return link(uri, json.load(answer)["experiment"]["experiment_id"])
    return None


def path_of_run(experiment_id: str, run_id: str) -> str:
    """Where a run stands in MLflow's pages: a link for a description."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{_TRAINING}"


def link_of_run(uri: str, experiment_id: str, run_id: str) -> str | None:
    """The address of a run's page; None of a store without pages."""
    return _page(uri, path_of_run(experiment_id, run_id))


def _page(uri: str, path: str) -> str | None:
    parts = urlsplit(pages_uri() or uri)
    if parts.scheme not in ("http", "https"):
        return None
    host = parts.netloc.rpartition("@")[2]  # whoever opens it logs in there
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/{path}"


def _state(*, where: str, columns: list[str], **more: Any) -> str:
    sections = [
        {
            "uuid": name,
            "name": name,
            "display": shown,
            "isReordered": True,
            "deleted": False,
            "isGenerated": True,
        }
        for name, shown in _SECTIONS.items()
    ]
    state = {
        "searchFilter": where,
        "orderByKey": _metric(SELECTED),
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "runsHiddenMode": "FIRST_20_RUNS",
        "selectedColumns": columns,
        "columnOrder": [_RUN_NAME, *columns],
        "columnWidths": {_RUN_NAME: 280} | {column: max(100, 8 * len(column)) for column in columns},
        "compareRunSections": sections,
        "isAccordionReordered": True,
        "compareRunCharts": [_curve("test/accuracy"), _curve("test/loss")],
        "globalLineChartConfig": {"lineSmoothness": 0, "xAxisKey": "step"},
        **more,
    }
    return json.dumps(state, separators=(",", ":"))


def _curve(metric: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "uuid": metric,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "metricSectionId": metric.partition("/")[0],
        "xAxisKey": "step",
        "scaleType": "linear",
        "lineSmoothness": 0,
        "runsCountToCompare": 20,
        "deleted": False,
        "isGenerated": True,
    }


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _param(name: str) -> str:
    return f"params.`{name}`"
