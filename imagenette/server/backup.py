"""Everything of a server into one file, and back. Both are made beside and renamed when they are whole."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from imagenette.errors import InputError, RunError
from imagenette.files import sync_folder
from imagenette.server import check, postgres
from imagenette.server.folder import Busy, Folder, Form
from imagenette.server.pack import Packer, unpack

FORMAT = 1
WAIT = 60.0  # seconds for the database of a server that is just starting
_ORDER = ("optuna", "mlflow")  # then the artifacts: what a database names is already there

Print = Callable[[str], None]


def backup(where: Path, file: Path, *, report: Print) -> None:
    """Write FILE from a server's folder, running or not. InputError, RunError."""
    os.umask(0o077)
    folder, file = Folder.at(where), file.absolute()
    form = folder.form()
    if form is None:
        raise InputError(f"--dir {folder.path}: there is no imagenette server to back up")
    check(folder, form)
    if file.is_dir() or folder.path in file.resolve().parents:
        raise InputError(f"{file}: name a file that is not in the server's folder")
    began = time.monotonic()
    with _one_line(file), _beside(file) as beside, ExitStack() as stack:
        _have_databases(folder, form, stack)
        with Packer(beside / "backup") as packer:
            for name in _ORDER:
                packer.add(*_copy_database(folder, form, name, beside))
            for path in sorted(folder.artifacts.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    packer.add(str(path.relative_to(folder.path)), path)
            packer.close(
                {
                    "format": FORMAT,
                    "form": form,
                    "postgresql": postgres.major(folder),
                    "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    **_versions(),
                }
            )
        (beside / "backup").replace(file)
        sync_folder(file.parent)
    size = file.stat().st_size / 1e6
    report(f"{file}: {size:.1f} MB, {time.monotonic() - began:.1f} s")


def restore(file: Path, where: Path, *, report: Print) -> None:
    """Make a server's folder from FILE. InputError where the folder holds anything, or the file is damaged:
    then nothing has changed."""
    os.umask(0o077)
    target = Folder.at(where)
    if target.path.exists() and (not target.path.is_dir() or any(target.path.iterdir())):
        raise InputError(f"--dir {target.path} is not empty: a backup goes into an empty or missing folder")
    target.check_writable()
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    target.path.parent.mkdir(parents=True, exist_ok=True)
    with _one_line(target.path), _beside(target.path) as beside:
        folder = Folder(beside / "server")
        folder.path.mkdir()
        manifest = unpack(file, folder.path)
        if manifest.get("format") != FORMAT:
            raise InputError(f"{file} was made by another imagenette, in another format")
        form: Form = manifest["form"]
        if form == "postgresql":
            postgres.check(target)
            beside.chmod(postgres.folder_mode())
            folder.path.chmod(postgres.folder_mode())
            _load_databases(folder)
        folder.make(form, mode=postgres.folder_mode() if form == "postgresql" else 0o700)
        os.sync()  # thousands of files at once
        folder.path.replace(target.path)
        sync_folder(target.path.parent)
    for package, now in _versions().items():
        if manifest[package] != now:
            report(
                f"made with {package} {manifest[package]}; {now} is here and may want its database upgraded"
            )
    report(f"{target.path}: {len(manifest['files'])} files of {manifest['created']}, all as they were")


def _have_databases(folder: Folder, form: Form, stack: ExitStack) -> None:
    """Until the stack is left: those of the server that runs, else PostgreSQL alone, started for this."""
    if form == "sqlite":
        return
    try:
        stack.enter_context(folder.held())
    except Busy:
        deadline = time.monotonic() + WAIT
        while not all(postgres.answers(folder, name) for name in postgres.DATABASES):
            if time.monotonic() > deadline:
                raise RunError(f"the database of the server in {folder.path} does not answer") from None
            time.sleep(0.5)
    else:
        stack.enter_context(postgres.running(folder))


def _copy_database(folder: Folder, form: Form, name: str, beside: Path) -> tuple[str, Path]:
    """One state of it, whoever writes to it meanwhile: name in the backup, file."""
    if form == "postgresql":
        copy = beside / f"{name}.dump"
        postgres.dump(folder, name, copy)
        return copy.name, copy
    copy = beside / f"{name}.db"
    with closing(sqlite3.connect(folder.database(name))) as db, closing(sqlite3.connect(copy)) as to:
        db.backup(to)
    return copy.name, copy


def _load_databases(folder: Folder) -> None:
    postgres.make_files(folder)
    with postgres.running(folder):
        postgres.make_databases(folder)
        for name in postgres.DATABASES:
            dumped = folder.path / f"{name}.dump"
            postgres.load(folder, name, dumped)
            dumped.unlink()
    shutil.rmtree(postgres.socket_folder(folder), ignore_errors=True)


def _versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in ("mlflow", "optuna")}


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A hidden folder next to path, gone afterwards; if we are killed it stays, and looks unfinished."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.unfinished-") as folder:
        yield Path(folder)


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{path} cannot be made: {reason}") from None
