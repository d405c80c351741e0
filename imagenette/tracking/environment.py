"""What the environment holds for MLflow: its variables are read and set here and nowhere else. Imports no
MLflow."""

from __future__ import annotations

import base64
import os
import re
import tempfile
from pathlib import Path

from imagenette.files import expanded

EXPERIMENT = "imagenette"
"""Of runs, unless MLFLOW_EXPERIMENT_NAME names another."""
_CLONE = re.compile(r"tmp[a-z0-9_]{8}")
_FIXED = {
    # A call that returns before the server has answered would be taken for delivered.
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}
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


def pages_uri() -> str | None:
    """IMAGENETTE_PAGES_URI: where browsers reach the server's pages, if it is not MLFLOW_TRACKING_URI (inside
    containers, say). None where it is not set, or empty."""
    return os.environ.get("IMAGENETTE_PAGES_URI") or None


def named_experiment() -> str | None:
    """MLFLOW_EXPERIMENT_NAME; None where it is not set, or empty."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or None


def experiment_name() -> str:
    """Where new runs go: MLFLOW_EXPERIMENT_NAME, else EXPERIMENT."""
    return named_experiment() or EXPERIMENT


def outer_experiment_id() -> str | None:
    """The experiment in which `mlflow run` made its run, where no name of one is set."""
    return None if named_experiment() else os.environ.get("MLFLOW_EXPERIMENT_ID")


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
    os.environ.update(_FIXED)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def credentials(user: str | None, password: str | None) -> dict[str, str] | None:
    """The header with which MLflow logs in; {} where it does not, None where a plugin or a file of the user's
    knows how. user, password: those in the server's address, which go before."""
    if os.environ.get("MLFLOW_TRACKING_AUTH") or os.environ.get("MLFLOW_TRACKING_AWS_SIGV4"):
        return None
    if not user:
        user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if user:
        login = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
        return {"Authorization": f"Basic {login}"}
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    return None if expanded("~/.mlflow/credentials").exists() else {}


def lasting(path: Path) -> Path:
    """Where a relative path of what a command leaves behind lies. `mlflow run ADDRESS` starts the command in
    a temporary clone, where nobody would find it again: then it lies in the user's data folder."""
    here, temporary = Path.cwd(), Path(tempfile.gettempdir()).resolve()
    below = here.relative_to(temporary).parts if here.is_relative_to(temporary) else ()
    if path.is_absolute() or not has_outer_run() or not below or not _CLONE.fullmatch(below[0]):
        return path
    data = expanded(os.environ.get("XDG_DATA_HOME") or "~/.local/share")
    return data.absolute() / "imagenette" / path
