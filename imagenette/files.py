"""Files that are whole whenever they are there, on the disk through a power cut; temporary ones that do not
outlast their process for long."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
"""Where this package's own files are."""


def expanded(path: str | Path) -> Path:
    """A path with `~` as the home folder; as it is where that names none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user, or neither HOME nor an entry in passwd
        return Path(path)


def write_whole(path: Path, text: str, *, fsync: bool = True) -> None:
    """Write beside, then replace: whoever reads path reads a whole file. Several processes may."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        if fsync:
            file.flush()
            os.fsync(file.fileno())
    beside.replace(path)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder, gone afterwards. What a killed process left goes when the next one is made."""
    above = Path(tempfile.gettempdir())
    for left in above.glob("imagenette-tmp-*"):
        with suppress(OSError), (left / ".lock").open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError while its process lives
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix="imagenette-new-"))
    try:
        with (folder / ".lock").open("wb") as file:
            with suppress(OSError):  # no locks on this file system: then nobody takes it for left either
                fcntl.flock(file, fcntl.LOCK_EX)
            # Only now by the name that is looked for: it was never without its lock.
            folder = folder.rename(above / folder.name.replace("-new-", "-tmp-"))
            (folder / "files").mkdir()
            yield folder / "files"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Make a folder with all that is in it last."""
    for path in [*folder.rglob("*"), folder]:
        sync_folder(path)


def sync_folder(folder: Path) -> None:
    """Make the renames inside a folder last; or a file's content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
