"""A real MLflow server that can be killed, and small runs and epochs to track."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from imagenette.records import Epoch
from imagenette.tracking.mlflow_tracker import MlflowTracker
from imagenette.tracking.outbox import Card


class Server:
    """An `mlflow server` process that can be killed and brought back on the same port and folder.

    login: of the administrator, behind MLflow's own basic auth; everybody else may read, and change what is
    their own."""

    def __init__(self, folder: Path, *, login: tuple[str, str] | None = None) -> None:
        self.folder, self.login = folder, login
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        if self.login:
            command += ["--app-name", "basic-auth"]
            config = {
                "default_permission": "READ",
                "auth_cache_ttl_seconds": "60",
                "database_uri": f"sqlite:///{self.folder}/auth.db",
            }
            config |= dict(zip(("admin_username", "admin_password"), self.login, strict=True))
            config["authorization_function"] = "mlflow.server.auth:authenticate_request_basic_auth"
            file = self.folder / "auth.ini"
            file.write_text("\n".join(["[mlflow]", *(f"{name} = {value}" for name, value in config.items())]))
            env |= {"MLFLOW_AUTH_CONFIG_PATH": str(file), "MLFLOW_FLASK_SERVER_SECRET_KEY": "a session's"}
        self.process = subprocess.Popen(
            command,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300  # many start at once on a busy machine
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.2)
        self.kill()
        raise TimeoutError(self.uri)

    def kill(self) -> None:
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def up(self) -> None:
        if self.process is None:
            self.start()


def small_card(experiment: str = "laws", **params: str) -> Card:
    data = {"name": "digits", "digest": "0123456789abcdef" * 4, "source": "/data/digits"}
    return Card(
        experiment=experiment,
        run_name="small",
        params={"depth": "18", "weight_decay": "0.0005", **params},
        tags={"role": "train", "seed": "0"},
        dataset=data | {"train_images": 1437, "test_images": 360, "classes": 10, "side": 32},
    )


def open_run(
    output: Path,
    uri: str,
    card: Card | None = None,
    *,
    resume: bool = False,
    offline: bool = False,
    **params: str,
) -> MlflowTracker:
    """The tracker of a small run, once the run is open."""
    who = card or small_card(**params)
    tracker = MlflowTracker(output, who, tracking_uri=uri, offline=offline)
    assert (tracker.run_id is None) <= offline
    return tracker


def epoch(index: int) -> Epoch:
    return Epoch(
        index=index,
        timestamp=1_700_000_000_000 + index,
        train_loss=2.0 / index,
        train_accuracy=1 - 1 / (index + 1),
        test_accuracy=0.5,
        lr=0.1,
        speed_images_per_second=100.0,
        speed_epoch_seconds=1.0,
        system={"cpu_utilization_percentage": 50.0},
    )
