"""Temporary folders, and what killed processes leave of them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from imagenette.files import scratch

HOLDS = """
import time
from imagenette.files import scratch
with scratch() as folder:
    (folder / "weights").touch()
    print(folder, flush=True)
    time.sleep(60)
"""


def test_a_temporary_folder_goes_with_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch() as folder:
        (folder / "weights").touch()
        assert list(tmp_path.iterdir()) == [folder.parent]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_and_what_a_living_one_has_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    env = {"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLDS], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    lives, left = (Path(holder.stdout.readline().strip()) for holder in holders if holder.stdout)
    try:
        holders[1].kill()
        holders[1].wait()
        assert (left / "weights").exists()
        with scratch() as folder:
            assert sorted(tmp_path.iterdir()) == sorted([lives.parent, folder.parent])
        assert (lives / "weights").exists()
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
