"""A real MLflow server, a real small model, and finished runs that hold it, made without training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.finished_runs import Shop, saved_model
from tests.tracking.conftest import empty_store, quiet_environment, uri  # noqa: F401
from tests.tracking.tracking_helpers import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("registry-server"))
    server.start()
    yield server
    server.kill()
    shutil.rmtree(server.folder)  # a gigabyte of weights


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model") / "selected")


@pytest.fixture(scope="session")
def shop(server: Server, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(server.uri, model_folder, tmp_path_factory.mktemp("runs"))
