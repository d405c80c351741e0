"""docs/plugins.md from end to end: its template trained on two processes, stopped, resumed, studied,
promoted, served, and loaded by MLflow where none of our code is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PARTS = [
    "--plugin",
    "parts.py",
    "--architecture",
    "four_layers",
    "--augment",
    "gray=0.2",
    "--optimizer",
    "signs",
]
DIGITS = ["--data", "digits", "--epochs", "8", "--device", "cpu", "--nproc", "2", "--output", "runs/mine"]
MODEL = ["--model", "imagenette-digits@champion"]
STUDY = """
name = "mine"
title = "Mine against the usual one"
seeds = [1]
grid = { optimizer = ["sgd", "signs"] }
[base]
plugin = "parts.py"
architecture = "four_layers"
augment = "gray=0.2"
data = "digits"
epochs = 1
"""
FRESH = """
import sys, mlflow
assert not any((__import__("pathlib").Path(place) / "imagenette").exists() for place in sys.path)
model = mlflow.pyfunc.load_model("models:/imagenette-digits@champion")
print(model.predict("picture.png").idxmax(axis=1).tolist())
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copy(ROOT / "docs/plugin/parts.py", folder)
    (folder / "mine.toml").write_text(STUDY)
    Image.new("RGB", (8, 8), "white").save(folder / "picture.png")
    return folder


@pytest.fixture(scope="module")
def env(place: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OPTUNA_", "IMAGENETTE_"))}
    own = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db",
        "OPTUNA_STORAGE": f"sqlite:///{place}/optuna.db",
    }
    return clean | own | {"OMP_NUM_THREADS": "1", "IMAGENETTE_HOME": str(place / "home")}


@pytest.fixture(scope="module")
def verb(place: Path, env: dict[str, str]):
    """verb("predict", "a.png") -> how `imagenette predict a.png` ended."""

    def verb(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "imagenette", *arguments]
        return subprocess.run(
            command, cwd=place, env=env, capture_output=True, text=True, timeout=400, check=False
        )

    return verb


@pytest.fixture(scope="module")
def trained(place: Path, env: dict[str, str], verb) -> str:
    """What the run said, stopped after its first epoch and resumed."""
    command = [sys.executable, "-m", "imagenette", "train", *PARTS, *DIGITS]
    log = (place / "log").open("w")
    first = subprocess.Popen(command, cwd=place, env=env, stderr=log)
    wait_until(lambda: "epoch 1/8" in (place / "log").read_text() or first.poll() is not None, 120)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 75, (place / "log").read_text()
    done = verb("train", *PARTS, *DIGITS)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_template_is_trained_promoted_and_served(trained: str, place: Path, env: dict[str, str], verb):
    assert "epoch 1/8" not in trained, "it went on where it stopped"
    refused = verb("promote", "--run", json.loads((place / "runs/mine/result.json").read_text())["run_id"])
    assert refused.returncode == 2
    assert "is built by the plugin parts.py#" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert verb("promote", "--plugin", "parts.py").returncode == 0
    shown = verb("predict", "picture.png", *MODEL, "--plugin", "parts.py")
    assert shown.returncode == 0, shown.stderr
    assert verb("predict", "picture.png", *MODEL).stderr.endswith("nothing that comes with a model is run)\n")

    (place / "other.py").write_text((place / "parts.py").read_text() + "\n# changed\n")
    changed = verb("predict", "picture.png", *MODEL, "--plugin", "other.py")
    assert "not by other.py#" in changed.stderr
    assert changed.returncode == 2

    command = [sys.executable, "-m", "imagenette", "serve", *MODEL, "--port", "0"]
    with (place / "serve.log").open("w") as log:
        service = subprocess.Popen(
            command, cwd=place, env=env | {"IMAGENETTE_PLUGIN": "parts.py"}, stderr=log
        )
    try:
        wait_until(lambda: "http://" in (place / "serve.log").read_text(), 60)
        address = "http://" + (place / "serve.log").read_text().split("http://")[1].split()[0].rstrip("/,")
        with urllib.request.urlopen(f"{address}/model") as answer:
            assert b"imagenette-digits" in answer.read()
    finally:
        service.terminate()
        assert service.wait(30) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_trains_its_optimizer_and_a_changed_plugin_ends_in_one_line(trained: str, place: Path, verb):
    done = verb("study", "mine.toml", "--workers", "2")
    assert done.returncode == 0, done.stderr
    (place / "parts.py").rename(place / "kept.py")
    try:
        gone = verb("train", *PARTS, *DIGITS)
        assert (gone.returncode, gone.stderr) == (2, "imagenette: plugin=parts.py: there is no such file\n")
        (place / "parts.py").write_text((place / "kept.py").read_text() + "\n# changed\n")
        changed = verb("train", *PARTS, *DIGITS)
        assert changed.returncode == 2
        assert "output=runs/mine holds a run with plugin=" in changed.stderr
        assert changed.stderr.count("\n") == 1
    finally:
        (place / "kept.py").rename(place / "parts.py")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_mlflow_loads_the_model_in_an_environment_of_its_own(
    trained: str, place: Path, env: dict[str, str], verb
):
    assert verb("promote", "--plugin", "parts.py").returncode == 0
    uv = Path(sys.executable).with_name("uv")
    fresh = place / "fresh"
    requirements = place / "runs/mine/models/selected/requirements.txt"
    for command in (
        [sys.executable, "-m", "venv", "--without-pip", fresh],
        [uv, "pip", "install", "--quiet", "--python", fresh / "bin/python", "-r", requirements],
    ):
        subprocess.run(command, check=True, timeout=600)
    assert (place / "runs/mine/models/selected/code/imagenette_model/plugin/parts.py").exists()
    done = subprocess.run(
        [fresh / "bin/python", "-c", FRESH], cwd=place, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "[" in done.stdout
