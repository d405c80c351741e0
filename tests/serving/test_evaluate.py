"""A model on a data set's test images: the same answers as one by one, and what is said of them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from imagenette.cli import main
from imagenette.errors import InputError
from imagenette.registry.model import open_folder
from imagenette.serving.evaluate import evaluate
from imagenette.stats import wilson
from tests.data.small_sets import encode, picture

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve test pictures of two of the model's three classes."""
    root = tmp_path_factory.mktemp("animals")
    for split, each in (("train", 1), ("val", 6)):
        for number, name in enumerate(("owl", "cat")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(each):
                (folder / f"{i}.png").write_bytes(encode(picture(10 * number + i, (40, 30)), "PNG"))
    return root


@pytest.fixture
def command(animals: Path, small_model: Path, monkeypatch, capsys):
    def run(*more: str, data: str = "") -> tuple[int, str, str]:
        line = ["evaluate", "--model", str(small_model), "--data", data or str(animals), *more]
        monkeypatch.setattr("sys.argv", ["imagenette", *line])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def test_its_answers_are_those_of_each_file_alone(animals: Path, small_model: Path):
    found, model = evaluate(str(small_model), str(animals)), open_folder(small_model)
    assert len(found.predictions.label) == 12
    for i, name in enumerate(found.dataset.test.names):
        shares = model.shares(model.preprocess((animals / name).read_bytes())[None])[0]
        assert found.predictions.predicted[i] == shares.argmax()
        assert found.predictions.share[i] == pytest.approx(shares.max(), abs=1e-6)
        assert CLASSES[found.predictions.label[i]] == name.split("/")[1]
    assert found.interval == wilson(found.right, 12)
    assert [row["class"] for row in found.rows()] == ["cat", "owl"], "the model's order; dog has no image"
    assert sum(row["right"] for row in found.rows()) == found.right


def test_what_it_prints_and_writes(command, tmp_path: Path):
    code, out, _ = command("--csv", str(tmp_path / "answers.csv"))
    rows = list(csv.DictReader((tmp_path / "answers.csv").open()))
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert (code, len(rows)) == (0, 12)
    low, high = (100 * end for end in (wilson(right, 12).low, wilson(right, 12).high))
    assert (
        f": {right / 12:.2%} of 12 images right [{low:.2f}, {high:.2f}; for other images of the kind]" in out
    )
    assert "animals0: whether it was trained on this data set is not known" in out
    assert re.search(r"^cat +6 +\d+\.\d%", out, re.M)
    code, out, _ = command("--json")
    said = json.loads(out)
    assert (said["images"], said["right"], said["accuracy"]) == (12, right, pytest.approx(right / 12))
    assert np.isclose(said["low"], wilson(right, 12).low)


def test_a_class_that_the_model_does_not_know_is_refused(command, small_model: Path):
    code, out, err = command(data="digits")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (
        "data=digits: the model knows no 0, 1, 2, 3, 4 and 5 more; of its 3 classes the first are cat" in err
    )
    with pytest.raises(InputError, match="the model knows no 0"):
        evaluate(str(small_model), "digits")
