"""Half a minute of the load that benchmarks/stack_load.py lays on MLflow for five."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.compose import PROJECT, Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


def test_eight_workers_at_forty_calls_a_second_lose_nothing_and_wait_less_than_half_a_second(
    stack: Stack, tmp_path: Path
) -> None:
    subprocess.run(
        [
            *[sys.executable, PROJECT / "benchmarks/stack_load.py", "--seconds", "30", "--rate", "40"],
            *["--uri", f"http://127.0.0.1:{stack.ports['mlflow']}", "--json", tmp_path / "load.json"],
            *["--password-file", stack.folder / "docker/secrets/password"],
        ],
        check=True,
        timeout=300,
    )
    figures = json.loads((tmp_path / "load.json").read_text())
    assert figures["calls_per_second"] >= 38  # its workers' start included
    assert figures["errors"] == 0
    assert figures["metrics_lost_or_doubled"] == 0
    assert figures["p99_ms"] < 500
