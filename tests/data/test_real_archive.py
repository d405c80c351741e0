"""The complete Imagenette at 224 px, where it lies beside the project or IMAGENETTE_ARCHIVE says."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imagenette.data import Dataset, open_dataset
from imagenette.data.images import decode
from imagenette.data.sources import IMAGENETTE

ARCHIVE = Path(
    os.environ.get("IMAGENETTE_ARCHIVE")
    or Path(__file__).parents[2].parent / "shared" / "data" / "imagenette2-224.tar"
)
pytestmark = pytest.mark.skipif(not ARCHIVE.exists(), reason=f"{ARCHIVE} is not there")


@pytest.fixture(scope="module")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("real")
    yield folder
    shutil.rmtree(folder)  # 2 GB, which pytest would keep for three sessions


@pytest.fixture(scope="module")
def real(real_home: Path) -> Dataset:
    lines: list[str] = []
    data = open_dataset(ARCHIVE, home=real_home, log=lines.append)
    assert lines == []
    return data


def test_counts_are_the_published_ones(real: Dataset) -> None:
    assert real.classes == tuple(IMAGENETTE)
    assert real.labels == tuple(label for label, _, _ in IMAGENETTE.values())
    for split, column in ((real.train, 1), (real.test, 2)):
        assert np.bincount(split.labels).tolist() == [row[column] for row in IMAGENETTE.values()]


def test_digest_is_the_one_it_always_had(real: Dataset) -> None:
    assert real.digest == "4269145dedd257e5b3908917d0307bdcea0df00a95ed7931ddc48500e5491f9e"


def test_images_of_native_side_are_stored_as_decoded(real: Dataset) -> None:
    assert real.side == 224
    rows = {f"imagenette2/{name}": row for row, name in enumerate(real.train.names)}
    with tarfile.open(ARCHIVE) as archive:
        checked = 0
        for info in archive:
            if info.name in rows and checked < 50:
                file = archive.extractfile(info)
                assert file
                assert np.array_equal(real.train.images[rows[info.name]], decode(file.read(), info.name))
                checked += 1
            if checked == 50:
                break


def test_warm_start_is_well_under_a_second(real: Dataset, real_home: Path) -> None:
    start = time.perf_counter()
    warm = open_dataset(ARCHIVE, home=real_home)
    assert time.perf_counter() - start < 1
    assert warm.digest == real.digest
