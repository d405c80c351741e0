"""`imagenette predict`: what it reads of a folder, and one line for each picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagenette.errors import shown
from imagenette.serving.predict import predict


def test_names_of_files_reach_the_terminal_on_one_line_without_control_characters(
    small_model: Path, jpeg: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a\nb.jpg", "c\x1b[31m.jpg", "d\u202egpj.jpg", "plain é.jpg"):
        (tmp_path / name).write_bytes(jpeg)
    for name in ("bad\nfile.jpg", "notes\x1b[2J.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "gone\n.jpg").symlink_to("nowhere")
    assert predict([tmp_path], model=str(small_model)) == 2
    said = capsys.readouterr()
    assert [line.split(".jpg")[0] for line in said.out.splitlines()] == [
        f"{tmp_path}/{name}" for name in ("a\\nb", "c\\x1b[31m", "d\\u202egpj", "plain é")
    ]
    dead, bad, end = said.err.splitlines()
    assert dead == f"imagenette: {tmp_path}: gone\\n.jpg: No such file or directory"
    assert bad.startswith(f"imagenette: {tmp_path}/bad\\nfile.jpg: the content is not an image")
    assert f": 4 pictures, 2 could not be read, 1 passed over as no pictures, such as {tmp_path}/notes" in end
    assert "\x1b" not in said.out + said.err


def test_a_table_has_a_row_a_picture_and_says_what_is_printed(
    small_model: Path, jpeg: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.jpg", "=1+1, b.jpg", "broken.jpg"):
        (tmp_path / name).write_bytes(jpeg if name != "broken.jpg" else b"x")
    assert predict([tmp_path], model=str(small_model), top=2, as_json=True, csv=tmp_path / "t.csv") == 1
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(printed) == 2
    for row, answer in zip(rows, printed, strict=True):
        assert row["file"] == answer["file"]
        for place, said in enumerate(answer["top"], 1):
            assert (row[f"class_{place}"], row[f"label_{place}"]) == (said["class"], said["label"])
            assert float(row[f"share_{place}"]) == pytest.approx(said["share"], abs=1e-6)
    assert set(rows[0]) == {"file", *(f"{key}_{n}" for n in (1, 2) for key in ("class", "label", "share"))}


@given(st.text())
def test_whatever_a_name_holds_it_is_shown_on_one_line(name: str) -> None:
    assert shown(name).isprintable()
    assert (shown(name) == name) == name.isprintable()
