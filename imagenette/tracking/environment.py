"""What the environment holds for MLflow: its variables are read and set here and nowhere else. Imports no
MLflow."""

from __future__ import annotations

import os

EXPERIMENT = "imagenette"
"""Of runs, unless MLFLOW_EXPERIMENT_NAME names another."""
_DEFAULTS = {
    # MLflow's own hold a call to a dead server for four minutes; these for seconds.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def tracking_uri() -> str | None:
    """MLFLOW_TRACKING_URI; None where it is not set, or empty."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def experiment_name() -> str:
    """MLFLOW_EXPERIMENT_NAME, else EXPERIMENT."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT


def outer_experiment_id() -> str | None:
    """The experiment in which `mlflow run` made its run, where it named none."""
    return None if os.environ.get("MLFLOW_EXPERIMENT_NAME") else os.environ.get("MLFLOW_EXPERIMENT_ID")


def has_outer_run() -> bool:
    """Whether `mlflow run` started this process, and made a run for it."""
    return "MLFLOW_RUN_ID" in os.environ


def take_outer_run() -> str | None:
    """The id of that run. It leaves the environment, so that no fluent call adopts the run."""
    return os.environ.pop("MLFLOW_RUN_ID", None)


def without_outer_run(variables: dict[str, str]) -> dict[str, str]:
    """An environment for a process whose runs are its own."""
    return {name: value for name, value in variables.items() if name != "MLFLOW_RUN_ID"}


def set_defaults() -> None:
    """Our settings of MLflow, where the user has none. To be called before other threads read the
    environment: changing it is not safe beside them."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
