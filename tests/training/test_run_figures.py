"""Laws of the figures of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagenette.records import Epoch, Predictions
from imagenette.results import FINAL, SELECTED
from imagenette.training.run_figures import draw_summary


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
    last, other = predicted(classes, count), predicted(classes, count, seed=2)
    drawn = draw_summary(
        folder,
        history(epochs),
        {FINAL: last, SELECTED: other},
        labels=[f"class number {i}" for i in range(classes)],
        images=rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        selected_epoch=max(1, epochs - 2),
    )
    return list(drawn)


@pytest.mark.parametrize(("classes", "epochs"), [(10, 30), (2, 1), (100, 3)])
def test_every_figure_is_drawn_whatever_the_number_of_classes(
    tmp_path: Path, classes: int, epochs: int
) -> None:
    files = summarize(tmp_path, classes, epochs)
    assert {f.name for f in files} == {f.name for f in tmp_path.iterdir()}
    assert {f.name for f in files} == {"curves.png", "confusion.png", "worst.png"}
    for file in files:
        width, height = Image.open(file).size
        assert 300 < width < 1600
        assert 200 < height < 1500


@pytest.mark.parametrize(
    "name", ["$5_$10", r"$\undefined{x}$", "a_b^c", "<b>&amp;", "=1+1", "%s {}", "\u202eright"]
)
def test_names_are_drawn_as_they_are(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    label = np.array([0, 0, 1])
    said = Predictions(label, np.array([0, 1, 1]), np.full(3, 0.9, dtype=np.float32))
    images = np.zeros((3, 8, 8, 3), dtype=np.uint8)
    drawn = draw_summary(tmp_path, history(1), {FINAL: said}, labels=[name, "other"], images=images)
    assert len(list(drawn)) == 3
    assert capsys.readouterr().err == ""


def test_a_figure_that_cannot_be_drawn_costs_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "confusion.png").mkdir()  # in its way
    files = summarize(tmp_path, 3, 2)
    assert [file.name for file in files] == ["curves.png", "worst.png"]
    assert "confusion.png could not be drawn: " in capsys.readouterr().err


def test_no_mistakes_is_a_picture_too(tmp_path: Path) -> None:
    label = np.arange(4) % 2
    perfect = Predictions(label, label, np.ones(4, dtype=np.float32))
    images = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    assert (
        len(list(draw_summary(tmp_path, history(1), {FINAL: perfect}, labels=["0", "1"], images=images))) == 3
    )
