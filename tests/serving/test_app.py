"""The routes, in this process: right answers, and for whatever else is sent one line and a 4xx at once."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from imagenette.registry import load
from imagenette.serving.app import create_app
from imagenette.serving.limits import Limits
from imagenette.serving.served import Served
from tests.data.small_sets import encode, picture

LIMITS = Limits(files=4, body=300_000, pixels=1_000_000, seconds=5.0)


@pytest.fixture(scope="module")
def served(small_model: Path) -> Served:
    served = Served(str(small_model), None, lambda line: None)
    served.load()
    return served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[TestClient]:
    with TestClient(create_app(served, LIMITS), raise_server_exceptions=False) as client:
        yield client


def upload(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{i}.png", content)) for i, content in enumerate(contents)]


def test_answers_are_the_model_s_own_in_the_order_of_the_files(client, small_model, pictures):
    model = load(str(small_model))
    expected = model.shares(np.stack([model.preprocess(data) for data in pictures[:4]]))
    response = client.post("/predict?top=3", files=upload(*pictures[:4]))
    assert response.status_code == 200
    said = response.json()
    assert said["model"] == {"name": None, "version": None, "run_id": None}
    assert [answer["file"] for answer in said["predictions"]] == ["0.png", "1.png", "2.png", "3.png"]
    for answer, row in zip(said["predictions"], expected, strict=True):
        shares = {top["class"]: top["share"] for top in answer["top"]}
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        assert [shares[name] for name in model.classes] == pytest.approx(row.tolist(), abs=1e-6)
    assert len(client.post("/predict?top=1", files=upload(pictures[0])).json()["predictions"][0]["top"]) == 1


def bomb_png(side: int) -> bytes:
    """A few hundred bytes that claim side x side pixels, all of them there: a whole, valid PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * ((side // 8 + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def many_scans() -> bytes:
    whole = encode(picture(1, (64, 64)), "JPEG", progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + scan * 200 + whole[-2:]


def float_tiff() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((9, 9), np.nan, dtype=np.float32)).save(out, "TIFF")
    return out.getvalue()


JPEG = encode(picture(2))
BAD_FILES = {
    "text": (b"no picture", "not an image"),
    "empty": (b"", "empty"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "gif": (encode(picture(0).convert("P"), "GIF"), "not an image"),
    "cut": (JPEG[: len(JPEG) // 2], "damaged"),
    "magic alone": (b"\x89PNG\r\n\x1a\n", "damaged"),
    "bomb": (bomb_png(20_000), "20000 x 20000 pixels; 1 to 1 million are read"),
    "many scans": (many_scans(), "more than 100 scans"),
    "nan pixels": (float_tiff(), "no fixed range"),
    "noise": (b"\xff\xd8\xff" + np.random.default_rng(0).bytes(5000), "damaged"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_file_that_is_no_picture_is_a_422_that_names_it(client, what):
    content, words = BAD_FILES[what]
    began = time.perf_counter()
    response = client.post("/predict", files=upload(JPEG, content))
    assert time.perf_counter() - began < 1
    assert response.status_code == 422
    assert response.json()["detail"].startswith("1.png: ")
    assert words in response.json()["detail"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"files": upload(*[JPEG] * 5)}, 413),
        ({"files": upload(b"x" * 400_000)}, 413),
        ({"content": iter([b"x" * 100_000] * 4)}, 413),
        ({"files": upload(JPEG), "params": {"top": "0"}}, 422),
        ({"files": upload(JPEG), "params": {"top": "nan"}}, 422),
        ({"files": upload(JPEG), "params": {"top": "1e400"}}, 422),
        ({"files": [("pictures", ("a.png", JPEG))]}, 422),
        ({"data": {"files": "text in the place of a file"}}, 422),
        ({"json": {"files": [float("1e300")]}}, 422),
        ({"content": b'{"files": NaN}', "headers": {"content-type": "application/json"}}, 422),
        ({"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 422),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({}, 422),
    ],
)
def test_wrong_requests_get_one_line_in_a_second(client, request_, status):
    began = time.perf_counter()
    response = client.post("/predict", **request_)
    assert time.perf_counter() - began < 1
    assert response.status_code == status, response.text
    detail = response.json()["detail"]
    assert isinstance(detail, str)
    assert "\n" not in detail
    assert len(detail) < 320


def test_without_a_model_it_lives_but_is_not_ready(small_model):
    empty = Served(str(small_model), None, lambda line: None)
    with TestClient(create_app(empty, LIMITS)) as client:
        assert client.get("/health").json() == {"status": "alive"}
        for route in ("/ready", "/model"):
            response = client.get(route)
            assert (response.status_code, response.json()) == (503, {"detail": "no model yet"})
        assert client.post("/predict", files=upload(JPEG)).status_code == 503
        empty.load()
        assert client.get("/ready").json() == {"status": "ready"}
        assert client.get("/model").json()["labels"] == ["cat", "dog", "owl"]


def test_a_request_that_would_wait_too_long_is_told_to_come_again(served):
    with TestClient(create_app(served, Limits(seconds=0.01, files=32))) as client:
        big = encode(picture(1, (3000, 3000)), "PNG")
        response = client.post("/predict", files=upload(big, big, big))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


def test_metrics_count_by_route_and_never_by_path(client, pictures):
    def figure(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    before = figure('imagenette_requests_total{route="/predict",status="200"}')
    passes = figure("imagenette_batch_pictures_sum")
    client.post("/predict", files=upload(*pictures[:3]))
    for i in range(5):
        client.get(f"/no/such/{i}")
    assert figure('imagenette_requests_total{route="/predict",status="200"}') == before + 1
    assert figure("imagenette_batch_pictures_sum") == passes + 3
    assert figure('imagenette_requests_total{route="other",status="404"}') >= 5
    assert "/no/such" not in client.get("/metrics").text
    assert figure("imagenette_model_info") == 1


def test_a_browser_may_load_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in ("/page.js", "/page.css", "/"):
        text = client.get(path).text
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
    assert client.get("/docs").status_code == 404
    assert client.get("/openapi.json").status_code == 200
