"""The whole tour on a real MLflow server: train two, promote, look up, predict, serve, ask over HTTP and over
MLflow's own server. The same test image gets the same answer everywhere."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from imagenette.data import open_dataset
from tests.serving.conftest import start_service
from tests.tracking.tracking_helpers import Server
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PICTURES = (0, 100, 200, 300, 350)


class Tour:
    """Commands as a user types them, in one folder, against one server."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        clean = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
        self.env = clean | {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", "PATH": path}

    def run(self, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    folder = tmp_path_factory.mktemp("tour")
    server = Server(folder)
    server.start()
    yield Tour(folder, server.uri)
    server.kill()


def train(tour: Tour, output: str, **knobs: str) -> str:
    options = [part for name, text in knobs.items() for part in (f"--{name}", text)]
    tour.run("imagenette", "train", "--data", "digits", "--output", output, *options)
    return str(json.loads((tour.folder / output / "result.json").read_text())["run_id"])


def stored(tour: Tour, run: str) -> dict[str, tuple[str, float]]:
    """What training said of each test image: class and share."""
    path = MlflowClient(tour.uri).download_artifacts(run, "predictions.csv", str(tour.folder))
    with Path(path).open(newline="") as file:
        return {
            r["image"]: (r["selected_predicted"], float(r["selected_share"])) for r in csv.DictReader(file)
        }


def pictures(folder: Path) -> dict[str, Path]:
    """Some of the test images as files, by the names they have in the data set."""
    test = open_dataset("digits", side=8).test
    files = {test.names[i]: folder / f"digit{i}.png" for i in PICTURES}
    for i, file in zip(PICTURES, files.values(), strict=True):
        Image.fromarray(test.images[i]).save(file)
    return files


@pytest.mark.slow  # each of its parts is tested in the suite; together they start processes for minutes
@pytest.mark.timeout(600)
def test_the_whole_tour(tour: Tour) -> None:
    # Two models. In bfloat16, the default: evaluation, export and service are float32 all the same.
    short = train(tour, "short", epochs="1", limit="640")
    long = train(tour, "long", epochs="3")

    # Promote: the first by hand through MLflow's project, then whichever is best.
    command = ["mlflow", "run", str(ROOT), "--env-manager", "local", "--experiment-name", "imagenette"]
    tour.run(*command, "-e", "promote", "-P", f"run={short}", "-P", "name=imagenette")
    done = tour.run("imagenette", "promote")
    assert f"run {long}" in done.stdout
    assert "imagenette version 2 is champion, version 1 is kept as previous" in done.stdout

    # Look up.
    known = json.loads(tour.run("imagenette", "lineage", "--json").stdout)
    assert (known["version"], known["run_id"], known["aliases"]) == (2, long, ["champion"])
    assert known["metrics"]["selected/holdout_accuracy"] > 0.9
    table = tour.run("imagenette", "lineage", "imagenette@previous").stdout
    assert short in table

    # Predict on files, one of which is none.
    files = pictures(tour.folder)
    (tour.folder / "notes.txt").write_text("no picture")
    done = tour.run(
        *("imagenette", "predict", "--json", "--top", "10", "notes.txt", *map(str, files.values())), code=2
    )
    assert "notes.txt: the content is not an image" in done.stderr
    predicted = [json.loads(line) for line in done.stdout.splitlines()]
    expected = stored(tour, long)
    assert len(predicted) == len(files)
    for name, answer in zip(files, predicted, strict=True):
        agrees(answer["top"], *expected[name])

    # Serve, and ask over HTTP.
    service = start_service(tour.folder, "imagenette@champion", tracking_uri=tour.uri)
    try:
        sent = [("files", (file.name, file.read_bytes())) for file in files.values()]
        said = httpx.post(f"{service.url}/predict?top=10", files=sent).json()
        assert said["model"] == {"name": "imagenette", "version": 2, "run_id": long}
        for name, answer, alone in zip(files, said["predictions"], predicted, strict=True):
            agrees(answer["top"], *expected[name])
            ours, theirs = ({row["class"]: row["share"] for row in a["top"]} for a in (answer, alone))
            assert ours == pytest.approx(theirs, abs=1e-4)
        assert httpx.get(f"{service.url}/model").json()["lineage"]["run_id"] == long
    finally:
        assert service.stop() == 0

    # MLflow's own server takes the same files as base64.
    for name, shares in zip(files, ask_mlflow(tour, list(files.values())), strict=True):
        label, share = expected[name]
        assert max(shares, key=lambda key: shares[key]) == label
        assert shares[label] == pytest.approx(share, abs=1e-4)


def agrees(top: list[dict[str, object]], label: str, share: float) -> None:
    assert top[0]["class"] == label
    assert top[0]["share"] == pytest.approx(share, abs=1e-4)


def ask_mlflow(tour: Tour, files: list[Path]) -> list[dict[str, float]]:
    """The answers of `mlflow models serve` on the champion."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/imagenette@champion"]
    command += ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    log = tour.folder / "mlflow-serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=tour.folder, env=tour.env, stdout=out, stderr=out, start_new_session=True
        )
    try:

        def alive() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/ping", timeout=2).is_success
            except httpx.TransportError:
                return False

        wait_until(alive, 120)
        rows = [[base64.b64encode(file.read_bytes()).decode()] for file in files]
        body = {"dataframe_split": {"columns": ["image"], "data": rows}}
        response = httpx.post(f"http://127.0.0.1:{port}/invocations", json=body, timeout=60)
        assert response.status_code == 200, response.text
        for bad in ("bm8gcGljdHVyZQ==", str(files[0])):  # no picture; a file of the server's
            body = {"dataframe_split": {"columns": ["image"], "data": [[bad]]}}
            refusal = httpx.post(f"http://127.0.0.1:{port}/invocations", json=body, timeout=60)
            assert refusal.status_code == 400, refusal.text
        return list(response.json()["predictions"])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_predict_reads_folders_and_says_what_it_cannot_read(tmp_path: Path, capsys) -> None:
    """Without a server, from a folder: many files in batches, in order, some of them unreadable."""
    from imagenette.errors import InputError
    from imagenette.registry import load
    from imagenette.serving.predict import predict
    from tests.registry.finished_runs import saved_model

    model = saved_model(tmp_path / "selected")
    rng, names = np.random.default_rng(0), []
    for i in range(150):
        file = tmp_path / "pictures" / f"{i % 3}" / f"{i:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(out, "PNG")
        file.write_bytes(out.getvalue() if i % 50 else b"damaged")
        names.append(file)
    (tmp_path / "pictures" / "readme.txt").write_text("left alone")
    assert predict([tmp_path / "pictures"], model=str(model), top=3, as_json=True) == 3
    said = capsys.readouterr()
    answers = [json.loads(line) for line in said.out.splitlines()]
    readable = [file for i, file in enumerate(names) if i % 50]
    assert [answer["file"] for answer in answers] == sorted(map(str, readable))
    loaded = load(str(model))
    for answer in answers[::29]:
        pixels = loaded.preprocess(Path(answer["file"]).read_bytes())
        alone = dict(zip(loaded.classes, loaded.shares(pixels[None])[0].tolist(), strict=True))
        assert {row["class"]: row["share"] for row in answer["top"]} == pytest.approx(alone, abs=1e-5)
    for i in (0, 50, 100):
        assert f"imagenette: {names[i]}: the content is not an image" in said.err
    assert "147 pictures, 3 could not be read" in said.err

    assert predict([readable[0]], model=str(model), top=1) == 0
    line = capsys.readouterr().out
    assert str(readable[0]) in line
    assert "%" in line
    for path, words in ((tmp_path / "none.png", "no such file or folder"), (model / "data", "no picture")):
        with pytest.raises(InputError, match=words):
            predict([path], model=str(model))
    with pytest.raises(InputError, match=r"model .*bare2.*: allowed are"):
        predict([readable[0]], model=str(tmp_path / "bare2" / "x" / "y"))
