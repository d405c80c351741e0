"""Passwords and keys that a study's environment holds: in no file, record or line of it, nor in the process
list, where every user of the machine would read them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import sql

from tests.study.conftest import postgres  # noqa: F401 - a fixture
from tests.study.databases import Postgres
from tests.tracking.conftest import the_server  # noqa: F401 - a fixture
from tests.tracking.front import front
from tests.tracking.tracking_helpers import Server

PLANTED = "pl4nted"
TOML = """
name = "secretive"
title = "One training"
seeds = [1]
base = { data = "digits", size = 32, limit = 256, epochs = 1, batch_size = 32 }
grid = { weight_decay = [0] }
"""


def command_lines(pid: int) -> set[str]:
    """Of a process and all that it started."""
    found = set()
    with suppress(psutil.NoSuchProcess):
        driver = psutil.Process(pid)
        for process in [driver, *driver.children(recursive=True)]:
            with suppress(psutil.Error):
                found.add(" ".join(process.cmdline()))
    return found


@pytest.mark.slow
def test_a_study_leaves_no_password_or_key_anywhere(
    the_server: Server,  # noqa: F811
    postgres: Postgres,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "secretive.toml").write_text(TOML)
    database = postgres.database()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OPTUNA_", "AWS_"))}
    command = [sys.executable, "-m", "imagenette", "study", str(tmp_path / "secretive.toml")]
    seen: set[str] = set()
    with (
        front(the_server.uri, login=f"me:{PLANTED}-tracking") as address,
        (tmp_path / "said").open("w") as said,
    ):
        env = clean | {
            "MLFLOW_TRACKING_URI": address.replace("://", f"://me:{PLANTED}-tracking@"),
            "OPTUNA_STORAGE": database.replace("postgres:@", f"postgres:{PLANTED}-database@"),
            "AWS_ACCESS_KEY_ID": "AKIA",
            "AWS_SECRET_ACCESS_KEY": f"{PLANTED}-key",
            "OMP_NUM_THREADS": "1",
        }
        assert all(PLANTED in env[name] for name in ("MLFLOW_TRACKING_URI", "OPTUNA_STORAGE"))
        process = subprocess.Popen(
            [*command, "--output", str(tmp_path / "runs")], env=env, stdout=said, stderr=said
        )
        while process.poll() is None:
            seen |= command_lines(process.pid)
            time.sleep(0.2)
    lines = (tmp_path / "said").read_text()
    assert process.returncode == 0, lines
    for part in ("imagenette study", "imagenette.study.worker", "imagenette train"):
        assert any(part in line for line in seen), part
    places = [line for line in seen if PLANTED in line]
    with psycopg.connect(database) as db:
        tables = db.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        for (table,) in tables.fetchall():
            rows = db.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))).fetchall()
            places += [f"table {table}" for (row,) in rows if PLANTED in row]
    files = [path for folder in (tmp_path, the_server.folder) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 30
    places += [str(path) for path in files if PLANTED.encode() in path.read_bytes()]
    assert places == []
