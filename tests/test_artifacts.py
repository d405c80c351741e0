"""Laws of the tables that a run leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagenette.artifacts import (
    as_cell,
    confusion,
    from_cell,
    read_classes,
    read_predictions,
    read_table,
    write_rows,
    write_tables,
)
from imagenette.records import Predictions
from imagenette.results import FINAL, SELECTED
from tests.training.test_run_figures import history, predicted


def test_a_name_that_is_no_text_breaks_no_table(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.csv", [{"image": "caf\udce9.jpg", "share": 0.5}])
    assert read_table(tmp_path / "a.csv") == [{"image": r"caf\udce9.jpg", "share": "0.5"}]
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_the_tables_say_what_was_predicted(tmp_path: Path) -> None:
    last, other = predicted(10, 400), predicted(10, 400, seed=2)
    selected = Predictions(last.label, other.predicted, other.share)
    names, labels = [f"val/{i}.jpg" for i in range(400)], [f"class number {i}" for i in range(10)]
    both = {FINAL: last, SELECTED: selected}
    classes = [f"n{i:08d}" for i in range(10)]
    files = write_tables(tmp_path, history(4), both, names=names, classes=classes, labels=labels)
    assert {file.name for file in files} == {file.name for file in tmp_path.iterdir()}
    table = read_table(tmp_path / "predictions.csv")
    assert [r["image"] for r in table] == names
    assert sum(r["label"] == r["predicted"] for r in table) == round(last.accuracy * 400)
    per_class = read_table(tmp_path / "per_class.csv")
    assert sum(int(r["images"]) for r in per_class) == 400
    assert sum(int(r["correct"]) for r in per_class) == round(selected.accuracy * 400)
    assert [r["epoch"] for r in read_table(tmp_path / "history.csv")] == ["1", "2", "3", "4"]
    assert float(read_table(tmp_path / "history.csv")[0]["test/accuracy"]) == history(1)[0].test_accuracy


def test_a_class_nobody_predicted_has_no_precision(tmp_path: Path) -> None:
    label = np.array([0, 0, 1])
    last = Predictions(label, np.zeros(3, dtype=np.int64), np.full(3, 0.9, dtype=np.float32))
    assert confusion(last, 3).tolist() == [[2, 0, 0], [1, 0, 0], [0, 0, 0]]
    epochs, names = history(2, holdout=False), ["a", "b", "c"]
    write_tables(tmp_path, epochs, {FINAL: last}, names=names, classes=list("xyz"), labels=list("xyz"))
    table = read_table(tmp_path / "per_class.csv")
    assert [(r["recall"], r["precision"]) for r in table] == [
        ("1.000000", "0.666667"),
        ("0.000000", ""),
        ("", ""),
    ]
    assert "selected_share" not in read_table(tmp_path / "predictions.csv")[0]


@pytest.mark.parametrize(
    "name", ["=1+1", "'=1", "-x", "@here", "+", "'", "'tis", "a,b", 'a"b', "a\nb", "$5_$10"]
)
def test_a_name_comes_back_as_it_was_and_is_no_formula(tmp_path: Path, name: str) -> None:
    label = np.array([0, 1])
    said = Predictions(label, label, np.full(2, 0.9, dtype=np.float32))
    classes = [name, "other"]
    write_tables(
        tmp_path, history(1), {FINAL: said}, names=[f"{name}.jpg", "b"], classes=classes, labels=classes
    )
    answers = read_predictions(tmp_path / "predictions.csv")
    assert (answers.names, answers.labels) == ((f"{name}.jpg", "b"), (name, "other"))
    assert read_classes(tmp_path / "per_class.csv") == {name: name, "other": "other"}
    first = (tmp_path / "per_class.csv").read_text().splitlines()[1]
    assert first.lstrip('"')[0] not in "=+-@"


@given(st.text())
def test_every_text_survives_a_cell(text: str) -> None:
    assert from_cell(as_cell(text)) == text


@pytest.mark.parametrize("number", ["-0.5", "-1e-05", "+3", "0.25", "12"])
def test_numbers_stay_numbers(number: str) -> None:
    assert as_cell(number) == from_cell(number) == number
