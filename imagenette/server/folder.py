"""The one folder that holds everything of a server: what may be in it, who is in it, and where things lie.

It names no absolute path inside, so that it can be moved while nothing runs in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagenette.errors import InputError
from imagenette.files import sync_folder, write_whole

Form = Literal["postgresql", "sqlite"]
FORMAT = 1


class Busy(InputError):
    """Somebody holds the folder."""


@dataclass(frozen=True)
class Folder:
    path: Path
    """Absolute."""

    @classmethod
    def at(cls, path: Path) -> Folder:
        """InputError for a name that could not stand in a database's address."""
        path = path.resolve()
        odd = sorted({letter for letter in str(path) if letter in '?#%,"\\' or not letter.isprintable()})
        if odd:
            raise InputError(
                f"--dir {path}: {odd[0]!r} cannot be part of a database's address; choose another"
            )
        return cls(path)

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def database(self, name: str) -> Path:
        """Of the form sqlite."""
        return self.path / f"{name}.db"

    # What it is.

    def form(self) -> Form | None:
        """None where no server was made yet: no folder, or an empty one. InputError for anything else."""
        try:
            entries = sorted(entry.name for entry in self.path.iterdir())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"--dir {self.path}: {(error.strerror or str(error)).lower()}") from None
        if not entries:
            return None
        if "server.json" not in entries:
            raise InputError(
                f"--dir {self.path} holds something else ({entries[0]}): name an empty folder, or a new one"
            )
        mark = json.loads((self.path / "server.json").read_text("utf-8"))
        if mark["format"] != FORMAT:
            raise InputError(f"--dir {self.path} was made by another imagenette, in format {mark['format']}")
        form: Form = mark["form"]
        return form

    def check_writable(self) -> None:
        """InputError unless this user may write here, or make it. Makes nothing."""
        there = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            raise InputError(f"--dir {self.path}: {there} is not writable")
        owner = there.stat().st_uid
        if there == self.path and owner != os.geteuid():
            raise InputError(
                f"--dir {self.path} belongs to {user_name(owner)}: start the server as that user"
            )

    # Its life.

    def make(self, form: Form, *, mode: int = 0o700) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(mode)
        for inside in (self.artifacts, self.path / "logs"):
            inside.mkdir(mode=0o700, exist_ok=True)
        write_whole(self.path / "server.json", json.dumps({"format": FORMAT, "form": form}) + "\n")
        sync_folder(self.path)

    def clear(self, *, keep: bool) -> None:
        """Take all of it away again, after a beginning that failed. keep: the folder itself stays."""
        shutil.rmtree(self.path, ignore_errors=True)
        if keep:
            self.path.mkdir()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be alone in it. Busy if another process is there; one that was killed is not."""
        with (self.path / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                who = file.read().strip() or "another"
                raise Busy(
                    f"--dir {self.path} is in use by process {who}: an imagenette server, or its backup"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def remember_port(self, mlflow: int) -> None:
        write_whole(self.path / "port", f"{mlflow}\n")

    def last_port(self) -> int:
        """MLflow's. InputError where no server ever was."""
        if self.form() is None or not (self.path / "port").exists():
            raise InputError(f"--dir {self.path}: no imagenette server was started there yet")
        return int((self.path / "port").read_text("utf-8"))

    def is_held(self) -> bool:
        """Only for a folder that was made."""
        try:
            with self.held():
                return False
        except Busy:
            return True


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
