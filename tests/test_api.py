"""What Python programs call: docs/python.md runs as it stands, and does what the command line does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from imagenette.training.job import read_config

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
def test_python_both_command_lines_and_a_study_s_cell_train_the_same_weights(said: str, place: Path):
    knobs = {"data": "digits", "epochs": "2", "limit": "256", "seed": "3"}
    options = [part for name, text in knobs.items() for part in (f"--{name}", text)]
    ours = [sys.executable, "-m", "imagenette", "train", *options, "--offline", "--output", "runs/third"]
    params = [part for name, text in knobs.items() for part in ("-P", f"{name}={text}")]
    mlflow = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local", *params]
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in (ours, [*mlflow, "-P", f"output={place}/runs/fourth"]):
        done = subprocess.run(
            command, cwd=place, env=environment(place) | path, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr
    places = [place / "runs" / name for name in ("first", "third", "fourth")]
    configs = [read_config(run) for run in places]
    assert len({config.digest() for config in configs}) == 1
    assert same_weights(*places)
    [trained] = place.glob("runs/decays-*/weight_decay=0.0_*")
    again = [*ours[:-1], "runs/fifth", "--weight-decay", "0"]
    subprocess.run(again, cwd=place, env=environment(place), capture_output=True, check=True, timeout=280)
    assert read_config(trained).digest() == read_config(place / "runs/fifth").digest()
    assert same_weights(trained, place / "runs/fifth")


def same_weights(*runs: Path) -> bool:
    return len({(run / "models/selected/weights.safetensors").read_bytes() for run in runs}) == 1


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
