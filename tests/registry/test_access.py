"""A server behind MLflow's basic auth, asked by an ordinary account: of what is not there it says 403."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.server.auth.client import AuthServiceClient

from imagenette.errors import InputError
from imagenette.registry.promote import promote
from imagenette.tracking.address import Address
from imagenette.tracking.client import connect
from imagenette.tracking.lookup import find_run, find_version
from tests.registry.finished_runs import Shop
from tests.tracking.tracking_helpers import Server

ADMIN = ("admin", "administrators password")


def log_in(monkeypatch: pytest.MonkeyPatch, user: str, password: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def test_an_ordinary_account_registers_the_first_model_and_is_told_what_is_not_there(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path, login=ADMIN)
    server.start()
    try:
        log_in(monkeypatch, *ADMIN)
        AuthServiceClient(server.uri).create_user("somebody", "somebodys password")
        log_in(monkeypatch, "somebody", "somebodys password")
        client = connect(server.uri)
        shop = Shop(server.uri, model_folder, tmp_path / "runs")
        run = shop.run(0.8)
        done = promote(tracking_uri=server.uri, experiment="registry", name="ours")
        assert (done.version, done.champion) == (1, 1)
        assert find_version(client, Address.parse("ours@champion")).run_id == run
        for address in ("nothing@champion", "nothing/1", "ours@nobody", "ours/7"):
            with pytest.raises(InputError, match="is not registered"):
                find_version(client, Address.parse(address))
        assert find_run(client, ["0"], "0" * 32) is None
        with pytest.raises(InputError, match="is not on tracking server"):
            promote(tracking_uri=server.uri, experiment="registry", run_id="0" * 32)
    finally:
        server.kill()
