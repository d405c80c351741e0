"""What Python programs call: docs/python.md runs as it stands, and does what the command line does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
MORE = """
import imagenette
import mlflow
from imagenette.errors import InputError

known = mlflow.MlflowClient().get_run(result.run_id)
assert known.data.metrics["selected/test_accuracy"] == result.metrics["selected/test_accuracy"]
assert sorted(frame["reused_run"].dropna()) == [result.run_id]
from imagenette.serving.evaluate import evaluate
found = evaluate("imagenette-digits@champion", "digits")
assert found.predictions.accuracy == result.metrics["selected/test_accuracy"], "to the image"
assert found.data == "the test images of the data set that it was trained on"
for wrong in ({"epochs": 0}, {"epoch": 3}):
    try:
        train(data="digits", **wrong)
    except InputError as error:
        print("refused:", error)
assert study is imagenette.study and study.__name__ == "imagenette.study"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("python")


def environment(place: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OPTUNA_"))}
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db", "IMAGENETTE_HOME": str(place / "home")}
    return clean | own | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def said(place: Path) -> str:
    """Standard output of the page's examples, in order."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(), re.M | re.S)
    assert len(blocks) == 5
    program = place / "page.py"
    program.write_text("\n".join([*blocks, MORE]))
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_s_examples_run_as_they_stand(said: str):
    lines = said.splitlines()
    assert re.fullmatch(r"finished [0-9a-f]{32} 0\.\d+", lines[0])
    assert "weight_decay=0.0 " in said
    assert "weight_decay=0.0005 " in said
    assert lines[-2:] == [
        "refused: epochs=0: epochs must be an integer >= 1",
        "refused: unknown knob epoch=3: did you mean epochs?",
    ]


def test_the_notebook_runs_from_its_first_cell_to_its_last(
    said: str, place: Path, monkeypatch: pytest.MonkeyPatch
):
    """In the page's folder, where its study's runs are: nothing is trained again."""
    for name, value in environment(place).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(ROOT / "docs/notebook.ipynb", as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(place)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("decays: 2 of 2 cells done" in output.get("text", "") for output in outputs)
    assert any("weight_decay=0.0005 is " in output.get("text", "") for output in outputs), "a verdict"
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_python_the_command_line_and_a_study_s_cell_train_the_same_weights(said: str, place: Path):
    config = json.loads((place / "runs/first/config.json").read_text())
    knobs = ["--data", "digits", "--epochs", "2", "--limit", "256", "--seed", "3", "--weight-decay", "0"]
    command = [sys.executable, "-m", "imagenette", "train", *knobs, "--offline", "--output", "runs/third"]
    subprocess.run(command, cwd=place, env=environment(place), capture_output=True, check=True, timeout=280)
    assert json.loads((place / "runs/third/config.json").read_text()) == config | {"weight_decay": 0.0}
    [cell] = place.glob("runs/decays-*/weight_decay=0.0*")
    weights = "models/selected/weights.safetensors"
    assert (cell / weights).read_bytes() == (place / "runs/third" / weights).read_bytes()


def test_the_package_costs_nothing_and_names_what_it_has():
    code = """
import sys, time
began = time.perf_counter()
import imagenette
took = time.perf_counter() - began
print(took < 0.1, sorted({"torch", "mlflow", "pandas", "pydantic"} & set(sys.modules)))
from imagenette import *
print(*sorted(name for name in imagenette.__all__ if callable(globals()[name])))
imagenette.trian
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "True []",
        "Config augmentation compare load_champion optimizer runs study train",
    ]
    assert done.stderr.endswith("AttributeError: module 'imagenette' has no attribute 'trian'\n")
