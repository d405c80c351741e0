"""A few test pictures by their names: the right ones, from wherever the set is, and never another set's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from imagenette.data import open_dataset
from imagenette.data.digits import open_digits
from imagenette.data.images import decode
from imagenette.data.peek import SIDE, NoPicturesError, peek
from imagenette.data.scan import scan
from tests.data.small_sets import Files, pack, small_set

NAMES = ["val/cat/1.JPEG", "val/dog/0.JPEG"]


@pytest.mark.parametrize(("packed", "top"), [("set", ""), ("set.tar", "pets/"), ("set.zip", "")])
def test_named_pictures_come_out_of_a_source_that_was_never_decoded(
    tmp_path: Path, files: Files, packed: str, top: str
) -> None:
    path = pack(files, tmp_path / packed, top=top)
    found = peek(NAMES, scan(path).digest, [str(tmp_path / "gone"), str(path)])
    assert sorted(found) == NAMES
    for name, image in found.items():
        assert np.array_equal(image, decode(files[name], name, SIDE))


def test_a_set_that_was_decoded_before_is_found_by_its_digest_alone(tmp_path: Path, files: Files) -> None:
    path = pack(files, tmp_path / "set")
    for side in (8, 16):
        data = open_dataset(path, side=side)
    shutil.rmtree(path)
    found = peek(NAMES, data.digest, [str(path)])
    rows = {name: data.test.images[row] for row, name in enumerate(data.test.names)}
    assert all(np.array_equal(found[name], rows[name]) for name in NAMES)


def test_pictures_of_another_set_are_never_given(tmp_path: Path) -> None:
    one, other = (pack(small_set(size=size), tmp_path / f"{size[0]}") for size in ((24, 16), (30, 20)))
    with pytest.raises(NoPicturesError, match=f"data={other} is other data") as caught:
        peek(NAMES, scan(one).digest, [str(other)])
    assert "\n" not in str(caught.value)


def test_what_is_not_here_is_told_in_one_line_and_nothing_is_fetched() -> None:
    for source in ("imagenette", "/no/such/folder", ""):
        with pytest.raises(NoPicturesError, match=f"pictures of data abcd1234 are not here: data={source}: "):
            peek(NAMES, "abcd1234" * 8, [source])


def test_digits_need_no_files() -> None:
    digits = open_digits()
    (image,) = peek([digits.test.names[7]], digits.digest, ["digits"]).values()
    assert np.array_equal(image, digits.test.images[7])
