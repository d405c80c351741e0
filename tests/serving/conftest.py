"""A service in a process of its own on a real registry, and clients."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.data.small_sets import encode, picture
from tests.registry.finished_runs import Shop, saved_model
from tests.tracking.tracking_helpers import Server
from tests.waiting import wait_until


@dataclass
class Service:
    """`imagenette serve` on a port of its own."""

    process: subprocess.Popen[str]
    log: Path
    url: str = ""

    @property
    def said(self) -> str:
        return self.log.read_text()

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.said
        found = re.search(r" at (http://\S+)", self.said)
        self.url = found[1] if found else ""
        if not found:
            return False
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def start_service(folder: Path, model: str, *options: str, tracking_uri: str = "") -> Service:
    log = folder / f"serve-{len(list(folder.iterdir()))}.log"
    command = [sys.executable, "-m", "imagenette", "serve", "--model", model, "--port", "0", *options]
    clean = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
    env = clean | ({"MLFLOW_TRACKING_URI": tracking_uri} if tracking_uri else {})
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=env, text=True, cwd=folder)
    service = Service(process, log)
    try:
        wait_until(service.is_up, 300)  # many start at once on a busy machine
    except AssertionError:
        service.kill()
        raise
    return service


@pytest.fixture(scope="session")
def tracking_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("serving-server"))
    server.start()
    yield server
    server.kill()
    shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model") / "selected")


@pytest.fixture(scope="session")
def registry(tracking_server: Server, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tracking_server.uri, small_model, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Service]]:
    """start(model, *options, tracking_uri=""): a service, ended with the module."""
    services: list[Service] = []
    folder = tmp_path_factory.mktemp("services")

    def start(model: str, *options: str, tracking_uri: str = "") -> Service:
        services.append(start_service(folder, model, *options, tracking_uri=tracking_uri))
        return services[-1]

    yield start
    for service in services:
        service.kill()


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    return encode(picture(3, (64, 48)))


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Twenty files, all different."""
    return [encode(picture(seed, (40, 30)), "PNG") for seed in np.arange(20)]
