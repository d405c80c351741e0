"""More epochs for a finished run: what a longer run from the start would have given, or one line why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagenette.config import resolve
from imagenette.errors import InputError
from imagenette.results import Status
from imagenette.training.extend import extend
from imagenette.training.job import Job, Result, claim_output

KNOBS = {"data": "digits", "epochs": 2, "schedule": "constant", "start_size": 0}


def ended(folder: Path, status: Status = Status.FINISHED, **knobs: object) -> Path:
    """A run's folder as it is after its end, with states that nobody reads."""
    claim_output(Job(config=resolve(KNOBS | knobs), output=folder))
    Result(status=status).write(folder)
    (folder / "checkpoints").mkdir()
    for name in ("last.pt", "selected.pt"):
        (folder / "checkpoints" / name).write_text(name)
    return folder


def test_its_last_state_is_where_the_longer_run_begins_once(tmp_path: Path):
    output, finished = tmp_path / "longer", ended(tmp_path / "run")
    for _ in range(2):
        assert extend(finished, {"epochs": 5, "device": "cpu"}, output).epochs == 5
        (output / "checkpoints/last.pt").write_text("further")
    assert (output / "checkpoints/last.pt").read_text() == "further", "a run that has begun goes on"
    assert (finished / "checkpoints/last.pt").read_text() == "last.pt"


@pytest.mark.parametrize(
    ("run", "given", "line"),
    [
        ({}, {}, "it has 2 epochs: --epochs must be more"),
        ({}, {"epochs": "2"}, "it has 2 epochs: --epochs must be more"),
        ({}, {"epochs": "4", "lr": "0.1"}, "lr=0.1 would make it another run; epochs alone may grow"),
        ({"status": Status.DIVERGED}, {"epochs": "4"}, "it is diverged; only a finished run can be extended"),
        ({"schedule": "onecycle"}, {"epochs": "4"}, "schedule=onecycle is laid over all epochs of a run; .*"),
        ({"schedule": "step"}, {"epochs": "4"}, "schedule=step is laid over .*; train anew with --epochs 4"),
        ({"size": 64, "start_size": 32}, {"epochs": "4"}, "start_size=32 grows over all epochs of a run; .*"),
    ],
)
def test_what_cannot_be_extended_is_one_line_and_leaves_nothing(tmp_path: Path, run, given, line):
    folder = ended(tmp_path / "run", **run)
    with pytest.raises(InputError, match=f"^extend={folder}: {line}$"):
        extend(folder, given, tmp_path / "longer")
    assert not (tmp_path / "longer").exists()


def test_a_run_that_kept_no_state_is_one_line(tmp_path: Path):
    folder = ended(tmp_path / "run")
    (folder / "checkpoints/selected.pt").unlink()
    with pytest.raises(InputError, match="its last state is gone"):
        extend(folder, {"epochs": "4"}, tmp_path / "longer")
