"""What stands before a tracking server: logins, proxies, sign-in pages, and environments that people have."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from imagenette.errors import InputError, RunError, without_secrets
from imagenette.results import Status
from imagenette.tracking import environment
from imagenette.tracking.client import check_alive
from imagenette.tracking.doctor import find
from imagenette.tracking.mlflow_tracker import MlflowTracker
from imagenette.tracking.outbox import read_card
from imagenette.tracking.sync import end_lost, sync
from tests.tracking.front import Answer, front
from tests.tracking.tracking_helpers import Server, epoch, open_run, small_card

PASSWORD = "p@s/s#1 planted"
PAGE = b"<html><body><h1>Please sign in</h1></body></html>"


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("USERNAME", "PASSWORD", "TOKEN", "AUTH"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def refusal(uri: str) -> str:
    began = time.monotonic()
    with pytest.raises(RunError) as error:
        check_alive(uri)
    assert time.monotonic() - began < 10
    assert "<" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_a_login_that_lacks_or_is_wrong_names_its_variables(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with front(server.uri, login=f"me:{PASSWORD}") as uri:
        assert (
            "wants a login (HTTP 401): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            in refusal(uri)
        )
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        assert "refuses the login (HTTP 401)" in refusal(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        check_alive(uri)
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
        check_alive(uri.replace("://", "://me:p%40s%2Fs%231%20planted@"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((403, "text/html", PAGE), "it forbids the call (HTTP 403)"),
        ((200, "text/html", PAGE), "what answers there is not MLflow's API (text/html)"),
        ((503, "text/html", PAGE), "it does not answer (HTTP 503): start it"),
    ],
)
def test_what_will_take_no_record_is_named_before_the_training(
    server: Server, answer: Answer, words: str
) -> None:
    with front(server.uri, instead=lambda path: answer if "/api/" in path else None) as uri:
        assert words in refusal(uri)


def test_one_request_tells_whether_records_will_be_taken(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    with front(server.uri, instead=asked.append) as uri:
        check_alive(uri)
        assert [path.partition("?")[0] for path in asked] == ["/api/2.0/mlflow/experiments/search"]
        asked.clear()
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "a plugin that alone can log in")
        check_alive(uri)
        assert asked == ["/health"]


def test_a_proxy_in_the_way_names_no_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with front(server.uri, instead=lambda path: (403, "text/html", PAGE)) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        assert f"the proxy {proxy} answers in its place (HTTP 403): add 127.0.0.1 to NO_PROXY" in refusal(
            server.uri
        )
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        check_alive(server.uri)


def test_delivered_means_acknowledged_whatever_the_environment_says(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ENABLE_ASYNC_LOGGING", "ENABLE_SYSTEM_METRICS_LOGGING", "ENABLE_ASYNC_TRACE_LOGGING"):
        monkeypatch.setenv(f"MLFLOW_{name}", "true")
    monkeypatch.setenv("IMAGENETTE_FLUSH_SECONDS", "1")
    failing = False

    def instead(path: str) -> Answer | None:
        return (503, "text/html", PAGE) if failing and "log-batch" in path else None

    with front(server.uri, instead=instead) as uri:
        tracker = open_run(tmp_path / "out", uri)
        tracker.log(epoch(1))
        failing = True
        tracker.log(epoch(2))
        assert tracker.close(Status.FINISHED) > 0
        failing = False
        monkeypatch.delenv("IMAGENETTE_FLUSH_SECONDS")  # a busy machine may take a second for a record
        assert sync(tmp_path / "out") == 0
    history = MlflowClient(server.uri).get_metric_history(tracker.run_id, "test/accuracy")
    assert [metric.step for metric in history] == [1, 2]


def test_no_password_is_left_anywhere(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGENETTE_FLUSH_SECONDS", "3")
    failing = True

    def instead(path: str) -> Answer | None:
        return (404, "text/html", PAGE) if failing and "log-batch" in path else None

    with front(server.uri, login=f"me:{PASSWORD}", instead=instead) as address:
        uri = address.replace("://", "://me:p%40s%2Fs%231%20planted@")
        tracker = open_run(tmp_path / "out", uri)
        tracker.log(epoch(1))
        assert tracker.close(Status.FINISHED) > 0
        assert read_card(tmp_path / "out").tracking_uri == address.replace("://", "://me@")
        failing = False
        with pytest.raises(RunError, match="refuses the login"):  # what is kept lets nobody in
            sync(tmp_path / "out")
        monkeypatch.delenv("IMAGENETTE_FLUSH_SECONDS")
        assert end_lost(tmp_path / "out", "killed", offline=False) > 0
        assert end_lost(tmp_path / "out", "killed", offline=False, login=uri) == 0, "who has the password"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert end_lost(tmp_path / "out", "killed", offline=False) == 0, "so has the environment"
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        assert sync(tmp_path / "out", uri) == 0
    kept = [server.folder / "mlflow.db", *(path for path in (tmp_path / "out").rglob("*") if path.is_file())]
    assert len(kept) > 4
    left = [path.read_bytes() for path in kept]
    assert not any(b"planted" in content for content in left)
    said = capfd.readouterr()
    assert "does not take records" in said.err
    assert "planted" not in said.out + said.err


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("http://me:p@ss/w:rd@host:5000/x", "http://me@host:5000/x"),
        ("postgresql://me:secret@/db?host=/run&password=secret", "postgresql://me@/db?host=/run"),
        ("postgresql://h/db?password=secret&sslmode=require", "postgresql://h/db?sslmode=require"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_an_address_is_kept_and_shown_without_its_password(address: str, kept: str) -> None:
    assert without_secrets(address) == kept
    for kind in (InputError, RunError):
        assert "secret" not in str(kind(f"storage={address}: no"))
        assert "w:rd" not in str(kind(address))


def test_a_stop_does_not_wait_for_a_server_that_hangs(server: Server, tmp_path: Path) -> None:
    answering = threading.Event()
    answering.set()

    def instead(path: str) -> Answer | None:
        answering.wait(12)
        return None

    with front(server.uri, instead=instead) as uri:
        tracker = MlflowTracker(tmp_path / "out", small_card(), tracking_uri=uri, offline=False)
        answering.clear()
        began = time.monotonic()
        assert not tracker.opened(within=0.5)
        assert time.monotonic() - began < 8
        answering.set()
        assert tracker.opened(within=60)
        tracker.close(Status.PREEMPTED)


def test_what_a_command_leaves_outlives_the_clone_of_mlflow_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "tmpab12cd_9" / "sub"
    clone.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(clone)
    assert environment.lasting(Path("runs")) == Path("runs")  # somebody's own folder
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert environment.lasting(Path("runs")) == tmp_path / "data/imagenette/runs"
    assert environment.lasting(Path("/x/y")) == Path("/x/y")
    monkeypatch.chdir(tmp_path)
    assert environment.lasting(Path("runs")) == Path("runs")


def test_the_doctor_finds_what_mlflow_run_left_in_the_default_experiment(uri: str) -> None:
    client = MlflowClient(uri)
    client.create_experiment("laws")
    long_ago = int(1000 * (time.time() - 2 * 3600))

    def left(entry: str, *params: str) -> str:
        run = client.create_run("0", start_time=long_ago, tags={"mlflow.project.entryPoint": entry})
        for name in params:
            client.log_param(run.info.run_id, name, "1")
        return str(run.info.run_id)

    ours = {left("main", "depth", "recipe", "nproc", "data"), left("study", "name", "workers", "smoke")}
    left("main", "alpha")  # somebody else's
    left("report", "studies")
    found = list(find(client, None))
    assert {finding.subject for finding in found} == ours
    assert {finding.kind for finding in found} == {"lost run"}
