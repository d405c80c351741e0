"""The first pass over a source: every name, size and checksum, every header, and no pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from imagenette.data.archive import members
from imagenette.data.images import is_image_name, read_size
from imagenette.data.layout import find_layout, shown
from imagenette.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One image of the source."""

    name: str
    """`train/n01440764/x.JPEG`"""
    sha256: str
    size: tuple[int, int]
    """Height and width in pixels."""


@dataclass(frozen=True)
class Scan:
    path: Path
    top: str
    """What stands before each entry's name inside the source."""
    classes: tuple[str, ...]
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    digest: str

    @property
    def native(self) -> int:
        """The longest side of any image, in pixels."""
        return max(max(entry.size) for entry in (*self.train, *self.test))


def scan(path: Path, *, progress: bool = False) -> Scan:
    """Read the whole source once. Raises InputError for a bad layout or any bad header in it."""
    checksums: dict[str, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    problems: dict[str, InputError] = {}  # raised only if the image belongs to a split
    folders: set[str] = set()
    with tqdm(desc=f"checking {path.name}", unit="img", disable=not progress, leave=False) as bar:
        for member in members(path, is_image_name):
            if member.data is None:
                folders.add(member.name)
                continue
            checksums[member.name] = hashlib.sha256(member.data).hexdigest()
            try:
                sizes[member.name] = read_size(member.data, f"data={path}: {shown(member.name)}")
            except InputError as error:
                problems[member.name] = error
            bar.update()
    layout = find_layout(checksums, folders, f"data={path}")
    for name in (*layout.train, *layout.test):
        if layout.top + name in problems:
            raise problems[layout.top + name]
    train, test = (
        tuple(Entry(name, checksums[layout.top + name], sizes[layout.top + name]) for name in names)
        for names in (layout.train, layout.test)
    )
    digest = digest_of((entry.name, entry.sha256) for entry in (*train, *test))
    return Scan(path, layout.top, layout.classes, train, test, digest)


def digest_of(checksums: Iterable[tuple[str, str]]) -> str:
    """One SHA-256 over the sorted pairs (name, SHA-256 of the bytes): independent of how they are packed."""
    total = hashlib.sha256()
    for name, sha256 in sorted(checksums):
        total.update(f"{name}\0{sha256}\n".encode())
    return total.hexdigest()
