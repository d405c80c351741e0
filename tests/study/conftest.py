"""Databases for studies: SQLite in a file and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.study.databases import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a Unix socket's path may have 107 characters
    server = Postgres(folder / "data")
    yield server
    server.server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'optuna.db'}"
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def new_database(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """new_database(kind): the address of an empty database."""

    def new(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / 'optuna.db'}"
        return request.getfixturevalue("postgres").database()

    return new
