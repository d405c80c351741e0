"""The first pass over a source: every name, size and checksum, every header, and no pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from imagenette.data.archive import members
from imagenette.data.images import read_size
from imagenette.data.layout import find_layout, parents, passed_over
from imagenette.errors import InputError, shown


@dataclass(frozen=True)
class Entry:
    """One image of the source."""

    name: str
    """`train/n01440764/x.JPEG`"""
    member: str
    """What the source calls it: `imagenette2/train/n01440764/x.JPEG`."""
    sha256: str
    size: tuple[int, int]
    """Height and width in pixels."""


@dataclass(frozen=True)
class Scan:
    path: Path
    classes: tuple[str, ...]
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    digest: str
    passed_over: str
    """What lies in the source and is not taken, in one line."""

    @property
    def native(self) -> int:
        """The longest side of any image, in pixels."""
        return max(max(entry.size) for entry in (*self.train, *self.test))


def scan(path: Path, *, progress: bool = False) -> Scan:
    """Read the whole source once. Raises InputError for a bad layout or any bad header in it."""
    checksums: dict[str, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    problems: dict[str, InputError] = {}  # raised only if the image belongs to a split
    names: dict[str, list[str]] = {"folder": [], "other": [], "system": []}
    with tqdm(desc=f"checking {shown(path.name)}", unit="img", disable=not progress, leave=False) as bar:
        for member in members(path):
            if member.data is None:
                names[member.kind].append(member.name)
                continue
            checksums[member.name] = hashlib.sha256(member.data).hexdigest()
            try:
                sizes[member.name] = read_size(member.data, f"data={path}: {shown(member.name)}")
            except InputError as error:
                problems[member.name] = error
            bar.update()
    folders = {
        *names["folder"],
        *(above for each in names.values() for name in each for above in parents(name)),
    }
    layout = find_layout(checksums, folders, f"data={path}")
    for member_name in (*layout.train.values(), *layout.test.values()):
        if member_name in problems:
            raise problems[member_name]
    train, test = (
        tuple(Entry(name, member, checksums[member], sizes[member]) for name, member in split.items())
        for split in (layout.train, layout.test)
    )
    digest = digest_of((entry.name, entry.sha256) for entry in (*train, *test))
    left = passed_over(layout, checksums, names["other"], names["system"])
    return Scan(path, layout.classes, train, test, digest, left)


def digest_of(checksums: Iterable[tuple[str, str]]) -> str:
    """One SHA-256 over the sorted pairs (name, SHA-256 of the bytes): independent of how they are packed."""
    total = hashlib.sha256()
    for name, sha256 in sorted(checksums):
        total.update(f"{name}\0{sha256}\n".encode())
    return total.hexdigest()
