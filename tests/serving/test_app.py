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
from imagenette.serving.predict import classify
from imagenette.serving.served import Served
from tests.data.small_sets import encode, picture, turned
from tests.waiting import wait_until

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


def test_a_phones_picture_is_seen_upright_over_http_and_by_predict(client, small_model, tmp_path):
    image = picture(1, (40, 30))
    pair = {"upright.png": encode(image, "PNG"), "phone.png": turned(image)}
    upright, phone = client.post("/predict", files=upload(*pair.values())).json()["predictions"]
    assert phone["top"] == upright["top"]
    for name, data in pair.items():
        (tmp_path / name).write_bytes(data)
    model = load(str(small_model))
    upright, phone = classify(model, [tmp_path / name for name in pair], top=3, unread=pytest.fail)
    assert phone.classes == upright.classes


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
    "gif": (encode(picture(0).convert("P"), "GIF"), "GIF and AVIF are not taken here"),
    "avif": (encode(picture(0), "AVIF"), "GIF and AVIF are not taken here"),
    "cut": (JPEG[: len(JPEG) // 2], "damaged"),
    "magic alone": (b"\x89PNG\r\n\x1a\n", "damaged"),
    "bomb": (bomb_png(20_000), "20000 x 20000 pixels; 1 to 1 million are read"),
    "many scans": (many_scans(), "scans, too many to decode"),
    "tiff with nan pixels": (float_tiff(), "TIFF is not taken here"),
    "fill bytes": (b"\xff\xd8" + b"\xff" * 200_000, "too many segments"),
    "comments": (b"\xff\xd8" + b"\xff\xfe\0\x02" * 50_000, "too many segments"),
    "chunks": (encode(picture(0), "PNG")[:33] + b"\0\0\0\0tEXtabcd" * 20_001, "too many chunks"),
    "run-length": (b"BM" + b"\0" * 28 + b"\1\0\0\0" + b"\0" * 100, "run-length encoded BMP"),
    "noise": (b"\xff\xd8\xff" + np.random.default_rng(0).bytes(5000), "damaged"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_file_that_is_no_picture_is_a_422_that_names_it(client, what):
    content, words = BAD_FILES[what]
    began = time.perf_counter()
    response = client.post("/predict", files=upload(content))
    assert time.perf_counter() - began < 1
    assert response.status_code == 422
    assert response.json()["detail"].startswith("0.png: ")
    assert words in response.json()["detail"]


def test_one_broken_file_among_several_leaves_the_others_their_answers(client):
    alone = client.post("/predict", files=upload(JPEG)).json()["predictions"][0]["top"]
    for broken in (b"no picture", JPEG[: len(JPEG) // 2]):
        response = client.post("/predict", files=upload(JPEG, broken, JPEG))
        assert response.status_code == 200
        first, second, third = response.json()["predictions"]
        assert first["problem"] is third["problem"] is None
        for answered in (first, third):
            assert [each["share"] for each in answered["top"]] == pytest.approx(
                [each["share"] for each in alone], abs=1e-5
            )
        assert second["top"] == []
        assert second["problem"].startswith("1.png: ")
    assert client.post("/predict", files=upload(b"x", b"y")).json()["detail"].startswith("0.png: ")


def test_the_routes_are_listed_on_a_page_that_loads_nothing_from_elsewhere(client):
    page = client.get("/docs")
    assert page.status_code == 200
    assert "POST /predict" in page.text
    assert "GET /ready" in page.text
    assert "http" not in page.text.replace("<!doctype html>", "")


FORM = {"content-type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"files": upload(*[JPEG] * 5)}, 413),
        ({"files": upload(b"x" * 400_000)}, 413),
        ({"content": iter([b"x" * 100_000] * 4), "headers": FORM}, 413),
        ({"files": upload(JPEG), "params": {"top": "0"}}, 422),
        ({"files": upload(JPEG), "params": {"top": "nan"}}, 422),
        ({"files": upload(JPEG), "params": {"top": "1e400"}}, 422),
        ({"files": [("pictures", ("a.png", JPEG))]}, 422),
        ({"data": {"files": "text in the place of a file"}}, 415),
        ({"json": {"files": [float("1e300")]}}, 415),
        ({"content": b'{"files": NaN}', "headers": {"content-type": "application/json"}}, 415),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; charset=utf-7"}}, 415),
        ({"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 422),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({}, 415),
        ({"content": b"", "headers": FORM}, 422),
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


def test_together_the_pictures_of_a_request_cost_no_more_than_one_may(client):
    big = encode(picture(1, (700, 700)), "JPEG")
    assert client.post("/predict", files=upload(big)).status_code == 200
    response = client.post("/predict", files=upload(big, big, big))
    assert response.json() == {"detail": "1,470,000 pixels; at most 1,000,000 in one request"}
    assert response.status_code == 413


def test_of_a_request_that_takes_too_long_nothing_goes_on(served, jpeg):
    """Costly pictures: refused when their time is over, and then they are in nobody's way."""
    costly = encode(picture(1, (2400, 2400)), "JPEG", progressive=True)
    with TestClient(create_app(served, Limits(files=32, pixels=200_000_000, seconds=0.5))) as client:
        assert client.post("/predict", files=upload(*[costly] * 32)).status_code == 503
        wait_until(lambda: client.post("/predict", files=upload(jpeg)).status_code == 200, 3)


def test_more_pictures_than_may_be_in_hand_are_turned_away(served, jpeg):
    with TestClient(create_app(served, Limits(waiting=3))) as client:
        assert client.post("/predict", files=upload(*[jpeg] * 3)).status_code == 200
        assert client.post("/predict", files=upload(*[jpeg] * 4)).status_code == 503
        assert client.post("/predict", files=upload(jpeg)).status_code == 200


@pytest.mark.parametrize("name", ["a\nb.png", "\x1b[31m.png", "x" * 500, "ü.png"])
def test_whatever_a_file_is_called_the_answer_is_one_line(client, name):
    response = client.post("/predict", files=[("files", (name, b"no picture"))])
    assert response.status_code == 422
    assert response.json()["detail"].isprintable()
    assert len(response.json()["detail"]) < 200


def test_bodies_together_are_bounded(served, jpeg):
    with TestClient(create_app(served, Limits(bodies=200))) as client:
        assert client.post("/predict", files=upload(jpeg)).status_code == 503


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
    with TestClient(create_app(served, Limits(seconds=0.02))) as client:
        response = client.post("/predict", files=upload(encode(picture(1, (4000, 4000)), "JPEG")))
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
    for path in ("/page.js", "/page.css", "/docs", "/"):
        text = client.get(path).text
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
    assert client.get("/openapi.json").status_code == 200
