"""Which process of a training this is, whatever the environment holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from imagenette.errors import InputError
from imagenette.training.ranks import Place, place, refuse_other_launchers, speaks
from tests.server.served import free_ports
from tests.waiting import wait_until

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
OTHERS = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *OTHERS):
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)


def test_torchruns_variables_make_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {**TORCHRUN, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    assert place() == Place(rank=1, size=2, local_rank=1, local_size=2)
    assert not speaks()


@pytest.mark.parametrize(
    "left", [{}, {"RANK": ""}, {"WORLD_SIZE": "8"}, {"LOCAL_WORLD_SIZE": ""}, {"MASTER_ADDR": "x"}]
)
def test_what_names_no_rank_trains_alone(monkeypatch: pytest.MonkeyPatch, left: dict[str, str]) -> None:
    given(monkeypatch, left)
    assert place() is None
    assert speaks()


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        (
            {"RANK": "0"},
            "RANK=0 is set, but not WORLD_SIZE, MASTER_ADDR, MASTER_PORT: torchrun sets all of them",
        ),
        ({"RANK": "0", "WORLD_SIZE": "1"}, "not MASTER_ADDR, MASTER_PORT"),
        ({**TORCHRUN, "WORLD_SIZE": ""}, "not WORLD_SIZE:"),
        ({**TORCHRUN, "RANK": "2"}, "RANK=2 with WORLD_SIZE=2: ranks go from 0 to 1"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK=-1: expected a whole number from 0"),
        ({**TORCHRUN, "WORLD_SIZE": "two"}, "WORLD_SIZE=two: expected a whole number from 1"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE=0: expected a whole number from 1"),
    ],
)
def test_what_contradicts_itself_is_one_line_that_somebody_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], complaint: str
) -> None:
    given(monkeypatch, variables)
    with pytest.raises(InputError) as error:
        place()
    assert complaint in str(error.value)
    assert speaks()


@pytest.mark.parametrize(
    ("variables", "refused"),
    [
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, "srun started 2 processes"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "mpirun started 4 processes"),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),
        ({"SLURM_STEP_NUM_TASKS": ""}, None),
    ],
)
def test_processes_that_know_nothing_of_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], refused: str | None
) -> None:
    given(monkeypatch, variables)
    if refused is None:
        refuse_other_launchers()
    else:
        with pytest.raises(InputError, match=refused):
            refuse_other_launchers()


WAITING = """
from imagenette.processes import stop_signals
from imagenette.training import distributed
distributed.QUIET = 0.1
with stop_signals() as stopping, distributed.join("cpu", stop=lambda: bool(stopping)):
    raise AssertionError("nobody else is there")
"""


def test_waiting_for_ranks_that_nobody_started_is_said_and_ends_on_a_signal() -> None:
    variables = {**TORCHRUN, "RANK": "0", "MASTER_PORT": str(free_ports(1)[0]), "OMP_NUM_THREADS": "1"}
    waiting = subprocess.Popen(
        [sys.executable, "-c", WAITING], env=os.environ | variables, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stderr is not None
    said = waiting.stderr.readline()
    assert said == "imagenette: rank 0 waits for the other processes of WORLD_SIZE=2 at 127.0.0.1\n"
    waiting.send_signal(signal.SIGTERM)
    wait_until(lambda: waiting.poll() is not None, 60)  # torch itself would wait for 600
    assert "KeyboardInterrupt" in waiting.communicate()[1]
