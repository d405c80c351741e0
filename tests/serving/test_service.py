"""The service as a process: it follows its alias under load, and whatever happens it loses no request."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from mlflow import MlflowClient

from imagenette.errors import InputError
from imagenette.registry import promote
from imagenette.serving.limits import Limits
from imagenette.serving.server import serve
from tests.registry.finished_runs import Shop
from tests.serving.conftest import Service
from tests.waiting import wait_until

FORM = {"content-type": "multipart/form-data; boundary=x"}


def go(registry: Shop, name: str, holdout: float) -> int:
    """Train (so to speak) and promote; the version's number."""
    run = registry.run(holdout)
    version = promote(tracking_uri=registry.uri, experiment="registry", name=name, run_id=run).version
    assert version is not None
    return version


@contextmanager
def load(service: Service, jpeg: bytes, *, clients: int = 4) -> Iterator[Counter[object]]:
    """Clients that ask without a pause; what they are told is counted: which version answered or why not."""
    told: Counter[object] = Counter()
    stopping = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not stopping.is_set():
                try:
                    response = client.post(f"{service.url}/predict", files={"files": ("a.jpg", jpeg)})
                    told[response.json()["model"]["version"] if response.is_success else response.text] += 1
                except httpx.TransportError as error:
                    told[f"{type(error).__name__}: {error}"] += 1

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


@pytest.mark.slow
def test_it_follows_its_alias_under_load(start, registry, tracking_server, jpeg):
    """No model, a first, a better one, a broken one, no tracking server, one more: nobody is turned away."""
    patient = ("--max-seconds", "60")  # 503 for want of cores is another law
    service = start("followed@champion", "--wait", "--follow", "0.3", *patient, tracking_uri=registry.uri)
    assert httpx.get(f"{service.url}/ready").status_code == 503
    first = go(registry, "followed", 0.7)
    wait_until(lambda: httpx.get(f"{service.url}/ready").status_code == 200)
    with load(service, jpeg) as told:
        wait_until(lambda: told[first] > 20)
        second = go(registry, "followed", 0.8)
        wait_until(lambda: told[second] > 20)

        broken = make_broken_champion(registry, "followed", like=second)
        wait_until(lambda: "is refused" in service.said)
        answered = told[second]
        wait_until(lambda: told[second] > answered + 20)

        before = len(service.said)  # a busy server may have been too slow for a look already
        tracking_server.kill()
        wait_until(lambda: "does not answer" in service.said[before:])
        answered = told[second]
        wait_until(lambda: told[second] > answered + 20)
        assert service.said[before:].count("does not answer") == 1, "said once"
        tracking_server.start()
        third = go(registry, "followed", 0.9)
        wait_until(lambda: told[third] > 20)
    assert set(told) == {first, second, third}
    assert f"version {broken} is refused, followed/{second} stays" in service.said
    for words in ("is refused", f"followed/{third} answers now"):
        assert service.said.count(words) == 1, "said once"
    metrics = httpx.get(f"{service.url}/metrics").text
    assert "imagenette_model_swaps_total 2.0" in metrics
    assert "imagenette_model_refusals_total 1.0" in metrics
    assert httpx.get(f"{service.url}/model").json()["lineage"]["version"] == third


def make_broken_champion(registry: Shop, name: str, *, like: int) -> int:
    """A version without a graph, to which somebody set the alias by hand."""
    client = MlflowClient(registry.uri)
    run = registry.run(0.9)
    client.log_text(run, "artifact_path: x\nflavors: {}\n", "broken/MLmodel")
    source = f"{client.get_run(run).info.artifact_uri}/broken"
    tags = dict(client.get_model_version(name, str(like)).tags) | {"withdrawn": "by hand"}
    version = client.create_model_version(name, source, run, tags=tags, await_creation_for=0).version
    client.set_registered_model_alias(name, "champion", version)
    return int(version)


def test_slow_endless_and_broken_off_bodies_hold_nobody_up_and_a_stop_loses_no_one(start, small_model, jpeg):
    service = start(str(small_model), "--max-seconds", "1", "--max-bytes", "2000000")
    with httpx.Client() as client:
        files = {"files": ("a.jpg", jpeg)}
        times = [client.post(f"{service.url}/predict", files=files).elapsed for _ in range(30)]
    assert min(times).total_seconds() < 0.04, "no answer waits for a delayed acknowledgement"

    host, port = service.url.removeprefix("http://").split(":")
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    slow = socket.create_connection((host, int(port)))
    slow.sendall(head + b"Content-Length: 1000\r\n\r\n--x")
    gone = socket.create_connection((host, int(port)))
    gone.sendall(head + b"Content-Length: 1000\r\n\r\n--x")
    gone.close()
    with load(service, jpeg, clients=1) as told:
        wait_until(lambda: told[None] > 20)
    assert set(told) == {None}
    assert b" 408 " in slow.recv(1000)
    slow.close()

    for body in (
        {"files": {"files": ("zeros", b"\0" * 8_000_000)}},
        {"content": iter([b"\0" * 500_000] * 16), "headers": FORM},
    ):
        began = time.monotonic()
        assert httpx.post(f"{service.url}/predict", **body).status_code == 413
        assert time.monotonic() - began < 1

    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    with load(service, jpeg) as told:
        wait_until(lambda: told[None] > 20)
        assert service.stop() == 0
    for connection in silent:
        connection.close()
    assert all("refused" in str(text) for text in set(told) - {None}), told  # whoever came after it had gone
    assert "Traceback" not in service.said


def test_a_stop_waits_for_the_next_request_of_who_was_just_answered(start, small_model, jpeg):
    """A busy machine may keep a client from sending it for a while."""
    service = start(str(small_model))
    ask = {"url": f"{service.url}/predict", "files": {"files": ("a.jpg", jpeg)}}
    with httpx.Client(timeout=30) as client:
        assert client.post(**ask).status_code == 200
        service.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        answer = client.post(**ask)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert service.process.wait(30) == 0


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_fifty_stops_in_a_row_under_load_lose_no_one(start, small_model, jpeg):
    lost = []
    for turn in range(50):
        service = start(str(small_model))
        with load(service, jpeg) as told:
            wait_until(lambda told=told: told[None] > 20)
            assert service.stop() == 0
        lost += [f"{turn}: {text}" for text in set(told) - {None} if "refused" not in str(text)]
        assert "Traceback" not in service.said
    assert lost == []


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nobody@champion", r"model nobody@champion is not registered: `imagenette promote` registers one"),
        ("a/b/c", r"model 'a/b/c': allowed are NAME@ALIAS and NAME/VERSION"),
    ],
)
def test_no_such_model_is_one_line(registry, model, words):
    with pytest.raises(InputError, match=words):
        serve(
            model, host="127.0.0.1", port=0, follow=1, wait=False, limits=Limits(), tracking_uri=registry.uri
        )


def test_an_ipv6_address_is_said_as_clients_take_it(start, small_model):
    service = start(
        str(small_model), "--host", "[::1]"
    )  # as it stands in a URL; up: asked at the address that it printed
    assert service.url.startswith("http://[::1]:")
    assert httpx.get(f"{service.url}/model").status_code == 200
    port = int(service.url.rpartition(":")[2])
    with pytest.raises(InputError, match=rf"cannot listen on \[::1\]:{port}: address already in use"):
        serve(str(small_model), host="::1", port=port, follow=1, wait=False, limits=Limits())


def test_a_taken_port_is_one_line(small_model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
            serve(str(small_model), host="127.0.0.1", port=port, follow=1, wait=False, limits=Limits())


def test_with_a_password_file_it_asks_everybody_on_every_route_but_health(start, small_model, jpeg, tmp_path):
    password = tmp_path / "password"
    password.write_text("correct horse battery\n")
    service = start(str(small_model), "--password-file", str(password))
    files = {"files": ("a.jpg", jpeg)}
    for path in ("/", "/model", "/ready", "/metrics", "/openapi.json"):
        assert httpx.get(service.url + path).status_code == 401
    assert httpx.post(f"{service.url}/predict", files=files).status_code == 401
    known = httpx.Client(base_url=service.url, auth=("imagenette", "correct horse battery"))
    assert known.post("/predict", files=files).status_code == 200
    assert known.get("/ready").status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example"):
        assert known.get("/model", headers={"Host": host}).status_code == 400
    foreign = {"Origin": "http://evil.example"}
    assert known.post("/predict", files=files, headers=foreign).status_code == 403
