from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from imagenette.data import digits, open_dataset


def test_digits_are_scikit_learns_and_split_for_good() -> None:
    data = open_dataset("digits")
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert data.digest == "1a7f4ff4025940a036014fd7412eebb71e2eebb84a5b7d01c839c37779433fc7"
    assert data.classes == data.labels == tuple("0123456789")
    assert data.side == 8
    for split in (data.train, data.test):
        assert split.images.dtype == np.uint8
        assert split.images.shape == (len(split), 8, 8, 3)
        assert split.images.min() == 0
        assert split.images.max() == 255
        assert split.labels.dtype == np.int64
        assert split.sizes.dtype == np.int32
        assert (split.sizes == 8).all()
        assert [int(name.split("/")[1]) for name in split.names] == split.labels.tolist()
    assert data.test.names[0].startswith("val/0/")


def test_splits_are_stratified_and_share_no_image() -> None:
    data = open_dataset("digits")
    train, test = (np.bincount(split.labels) for split in (data.train, data.test))
    assert np.abs(test / (train + test) - 0.2).max() < 0.01
    rows = [int(name.split("/")[2]) for split in (data.train, data.test) for name in split.names]
    assert sorted(rows) == list(range(1797))


def test_table_equals_load_digits_wherever_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    direct = digits.read_table()
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    assert np.array_equal(digits.read_table(), direct)


def test_smaller_side_squashes() -> None:
    assert open_dataset("digits", side=4).train.images.shape == (1438, 4, 4, 3)


def test_opening_digits_imports_neither_torch_nor_sklearn(tmp_path: Path) -> None:
    code = (
        "import sys; from imagenette.data import open_dataset; open_dataset('digits');"
        "print([m for m in ('torch', 'sklearn', 'mlflow') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
