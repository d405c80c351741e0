"""Files that are whole whenever they are there, on the disk through a power cut."""

from __future__ import annotations

import os
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


def sync_folder(folder: Path) -> None:
    """Make the renames inside a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
