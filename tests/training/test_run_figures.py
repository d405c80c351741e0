"""Laws of the figures and tables of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagenette.artifacts import confusion, read_table
from imagenette.records import Epoch, Predictions
from imagenette.results import FINAL, SELECTED
from imagenette.training.run_figures import write_summary


def history(count: int, *, holdout: bool = True) -> list[Epoch]:
    return [
        Epoch(
            index=i,
            timestamp=1_700_000_000_000 + i,
            train_loss=2.3 * 0.93**i,
            train_accuracy=1 - 0.9 * 0.93**i,
            holdout_loss=2.3 * 0.94**i if holdout else None,
            holdout_accuracy=0.97 - 0.87 * 0.92**i if holdout else None,
            test_loss=2.3 * 0.95**i + 0.1,
            test_accuracy=0.95 - 0.85 * 0.9**i,
            lr=0.1,
            speed_images_per_second=100.0,
            speed_epoch_seconds=1.0,
        )
        for i in range(1, count + 1)
    ]


def predicted(classes: int, count: int, *, accuracy: float = 0.85, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    label = np.sort(rng.integers(0, classes, count))
    off = rng.integers(1, classes, count) if classes > 1 else np.zeros(count, dtype=int)
    said = np.where(rng.random(count) < accuracy, label, (label + off) % classes)
    return Predictions(label, said, rng.uniform(1 / classes, 1, count).astype(np.float32))


def summarize(folder: Path, classes: int, epochs: int, count: int = 400, side: int = 32) -> list[Path]:
    rng = np.random.default_rng(1)
    last = predicted(classes, count)
    other = predicted(classes, count, seed=2)
    return write_summary(
        folder,
        history(epochs),
        {FINAL: last, SELECTED: Predictions(last.label, other.predicted, other.share)},
        names=[f"val/{i}.jpg" for i in range(count)],
        classes=[f"n{i:08d}" for i in range(classes)],
        labels=[f"class number {i}" for i in range(classes)],
        images=rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        selected_epoch=max(1, epochs - 2),
    )


@pytest.mark.parametrize(("classes", "epochs"), [(10, 30), (2, 1), (100, 3)])
def test_every_file_is_written_whatever_the_number_of_classes(
    tmp_path: Path, classes: int, epochs: int
) -> None:
    files = summarize(tmp_path, classes, epochs)
    assert {f.name for f in files} == {f.name for f in tmp_path.iterdir()}
    assert {f.name for f in files} == {
        *("curves.png", "confusion.png", "worst.png"),
        *("history.csv", "per_class.csv", "predictions.csv"),
    }
    for file in files:
        if file.suffix == ".png":
            width, height = Image.open(file).size
            assert 300 < width < 1600
            assert 200 < height < 1500


def test_the_tables_say_what_was_predicted(tmp_path: Path) -> None:
    summarize(tmp_path, 10, 4)
    last = predicted(10, 400)
    table = read_table(tmp_path / "predictions.csv")
    assert [r["image"] for r in table] == [f"val/{i}.jpg" for i in range(400)]
    assert sum(r["label"] == r["predicted"] for r in table) == round(last.accuracy * 400)
    per_class = read_table(tmp_path / "per_class.csv")
    assert sum(int(r["images"]) for r in per_class) == 400
    selected = sum(r["label"] == r["selected_predicted"] for r in table)
    assert sum(int(r["correct"]) for r in per_class) == selected
    assert [r["epoch"] for r in read_table(tmp_path / "history.csv")] == ["1", "2", "3", "4"]
    assert float(read_table(tmp_path / "history.csv")[0]["test/accuracy"]) == history(1)[0].test_accuracy


def test_a_class_nobody_predicted_has_no_precision(tmp_path: Path) -> None:
    label = np.array([0, 0, 1])
    last = Predictions(label, np.zeros(3, dtype=np.int64), np.full(3, 0.9, dtype=np.float32))
    assert confusion(last, 3).tolist() == [[2, 0, 0], [1, 0, 0], [0, 0, 0]]
    write_summary(
        tmp_path,
        history(2, holdout=False),
        {FINAL: last},
        names=["a", "b", "c"],
        classes=["x", "y", "z"],
        labels=["x", "y", "z"],
    )
    table = read_table(tmp_path / "per_class.csv")
    assert [(r["recall"], r["precision"]) for r in table] == [
        ("1.000000", "0.666667"),
        ("0.000000", ""),
        ("", ""),
    ]
    assert not (tmp_path / "worst.png").exists()
    assert "selected_share" not in read_table(tmp_path / "predictions.csv")[0]


def test_no_mistakes_is_a_picture_too(tmp_path: Path) -> None:
    label = np.arange(4) % 2
    perfect = Predictions(label, label, np.ones(4, dtype=np.float32))
    write_summary(
        tmp_path,
        history(1),
        {FINAL: perfect},
        names=list("abcd"),
        classes=["0", "1"],
        labels=["0", "1"],
        images=np.zeros((4, 8, 8, 3), dtype=np.uint8),
    )
    assert (tmp_path / "worst.png").exists()
