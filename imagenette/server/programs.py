"""MLflow and Optuna's dashboard as parts, on either kind of database, and what has to stand there before."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import sys

from imagenette.errors import RunError
from imagenette.processes import cores
from imagenette.server import postgres
from imagenette.server.folder import Folder
from imagenette.server.leftovers import MARK
from imagenette.server.parts import Part, answers_http, run_tool

MOST_WORKERS = 4  # of MLflow: 300 MB each


def mlflow(folder: Folder, port: int) -> Part:
    """MLflow's server; artifacts go through it, so that clients need no way to the folder."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", str(min(MOST_WORKERS, cores()))]
    command += ["--backend-store-uri", database_address(folder, "mlflow")]
    command += ["--artifacts-destination", str(folder.artifacts)]
    # uvicorn kills a worker that does not answer it for 5 s, as a busy machine may make any.
    command += ["--uvicorn-opts", "--no-access-log --timeout-worker-healthcheck 60"]
    return Part(
        name="MLflow",
        command=command,
        log=folder.log("mlflow"),
        answers=lambda: answers_http(port, "/health"),
        env=_environment(folder) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=folder.path,
        scratch=folder.path / "tmp",  # an upload passes through it
        worker_word="spawn_main",  # uvicorn's, by multiprocessing,
    )


def dashboard(folder: Folder, port: int) -> Part:
    """Its names are loopback's, so that no web page reaches it by a name of its own."""
    command = [sys.executable, "-m", "imagenette.stack.dashboard", "--port", str(port), "--no-password"]
    return Part(
        name="Optuna's dashboard",
        command=command,
        log=folder.log("dashboard"),
        answers=lambda: answers_http(port, "/health"),
        env=_environment(folder) | {"OPTUNA_STORAGE": database_address(folder, "optuna")},
        cwd=folder.path,
    )


def has_dashboard() -> bool:
    return all(importlib.util.find_spec(package) for package in ("optuna_dashboard", "a2wsgi"))


def database_address(folder: Folder, name: str) -> str:
    """As SQLAlchemy reads it."""
    if folder.form() == "sqlite":
        return f"sqlite:///{folder.database(name)}"
    return postgres.address(folder, name)


def make_sqlite(folder: Folder) -> None:
    """Both files, in the mode in which readers do not wait for a writer."""
    for name in postgres.DATABASES:
        db = sqlite3.connect(folder.database(name))
        db.execute("PRAGMA journal_mode=WAL")
        db.close()


def make_tables(folder: Folder) -> None:
    """Optuna's and a study's, which `imagenette status` reads without making any. RunError in one line."""
    code = "from imagenette.study.storage import open_storage, resolve_storage as r; open_storage(r(None))"
    env = _environment(folder) | {"OPTUNA_STORAGE": database_address(folder, "optuna")}
    done = run_tool([sys.executable, "-c", code], env=env, start_new_session=True)  # Ctrl-C is ours to note
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
        raise RunError(f"Optuna's tables cannot be made: {line}")


def _environment(folder: Folder) -> dict[str, str]:
    """Ours, without what it says of another MLflow server, run or setting."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith(("MLFLOW_", "OPTUNA_"))}
    return ours | {MARK: str(folder.path)}
