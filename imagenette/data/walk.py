"""What of a folder is read at all: one rule for data sets, in whatever packing, and for `predict FOLDER`."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import shown  # relative: this file travels inside saved models, see export.py
from .images import HEAD, is_image_head, is_image_name

Kind = Literal["folder", "picture", "other", "system"]
"""A system entry (hidden, a NAS's, a desktop's) is passed over with all that is below it."""

_SYSTEM = {
    *(
        "__macosx",
        "icon\r",
        "network trash folder",
        "temporary items",
    ),  # macOS; its ._x and .DS_Store are hidden
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
    *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot"),  # NAS
    *("lost+found", "__pycache__"),
}


@dataclass(frozen=True)
class Found:
    name: str
    """Relative path with forward slashes."""
    kind: Kind
    status: os.stat_result | None
    """None of a system entry."""


def system_entry(name: str) -> str | None:
    """The uppermost hidden or system entry on a relative path; None where there is none."""
    parts = name.split("/")
    for depth, part in enumerate(parts, 1):
        if part.startswith(".") or part.lower() in _SYSTEM:
            return "/".join(parts[:depth])
    return None


def walk(root: Path, refuse: Callable[[str], None]) -> Iterator[Found]:
    """All below a folder, sorted; a file is a picture by its suffix, or else by its first bytes.

    Links are followed: what a user linked into a folder of their own is meant. `refuse(why)` is told, in one
    line that begins with the name, of what is neither file nor folder, cannot be read, or links back to a
    folder above it; if it returns, the walk goes on without that."""
    pending = [("", frozenset[tuple[int, int]]())]
    while pending:
        folder, above = pending.pop()
        try:
            status = (root / folder).stat()  # follows links, as scandir's stat below
            with os.scandir(root / folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            refuse(f"{shown(folder)}: {error.strerror}" if folder else f"cannot be read: {error.strerror}")
            continue
        here = (status.st_dev, status.st_ino)
        if here in above:
            refuse(f"{shown(folder)} links back to a folder above it")
            continue
        for entry in ordered:
            name = f"{folder}{entry.name}"
            if system_entry(entry.name):
                yield Found(name, "system", None)
                continue
            try:
                status = entry.stat()
                if stat.S_ISDIR(status.st_mode):
                    pending.append((f"{name}/", above | {here}))
                    yield Found(name, "folder", status)
                elif stat.S_ISREG(status.st_mode):
                    yield Found(name, "picture" if _is_picture(root / name) else "other", status)
                else:
                    refuse(f"{shown(name)} is not a plain file or folder")
            except OSError as error:
                refuse(f"{shown(name)}: {error.strerror}")


def _is_picture(file: Path) -> bool:
    if is_image_name(file.name):  # Imagenette's 13,394 files need not be opened
        return True
    with file.open("rb") as stream:
        return is_image_head(file.name, stream.read(HEAD))
