"""`imagenette predict`: what it reads of a folder, and one line for each picture."""

from __future__ import annotations

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


@given(st.text())
def test_whatever_a_name_holds_it_is_shown_on_one_line(name: str) -> None:
    assert shown(name).isprintable()
    assert (shown(name) == name) == name.isprintable()
