"""The first pass over a source: every name, size and checksum, every header, and no pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from imagenette.data.archive import members
from imagenette.data.images import read_header
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
    """Height and width in pixels, upright."""
    turned: bool
    """Stored otherwise than shown, as EXIF's orientation says."""


@dataclass(frozen=True)
class Scan:
    path: Path
    classes: tuple[str, ...]
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    passed_over: str
    """What lies in the source and is not taken, in one line."""
    split: str
    """How the test set was made, in one line, where the source has none."""
    bad: Mapping[str, str]
    """Name inside the source -> why the image cannot be read. No split has these."""

    @cached_property
    def digest(self) -> str:
        """Over every image's name and bytes. A turned one has a mark: before there was one, its pixels were
        used as they are stored."""
        marks = {False: "", True: " upright"}
        return digest_of((e.name, e.sha256 + marks[e.turned]) for e in (*self.train, *self.test))

    @property
    def native(self) -> int:
        """The longest side of any image, in pixels."""
        return max(max(entry.size) for entry in (*self.train, *self.test))

    def without(self, bad: Mapping[str, str]) -> Scan:
        """The same less these images too. Raises InputError where a class has no image left in a split."""
        train, test = (
            tuple(entry for entry in split if entry.member not in bad) for split in (self.train, self.test)
        )
        for split in (train, test):
            left = {entry.name.split("/")[1] for entry in split}
            if gone := [label for label in self.classes if label not in left]:
                where = "training" if split is train else "test"
                raise InputError(
                    f"data={self.path}: no {where} picture of class {shown(gone[0])} can be read"
                )
        return replace(self, train=train, test=test, bad={**self.bad, **bad})


def scan(path: Path, *, progress: bool = False) -> Scan:
    """Read the whole source once. Raises InputError for a bad layout; bad headers are told in `bad`."""
    checksums: dict[str, str] = {}
    headers: dict[str, tuple[int, int, bool]] = {}
    bad: dict[str, str] = {}
    names: dict[str, list[str]] = {"folder": [], "other": [], "system": []}
    with tqdm(desc=f"checking {shown(path.name)}", unit="img", disable=not progress, leave=False) as bar:
        for member in members(path):
            if member.data is None:
                names[member.kind].append(member.name)
                continue
            checksums[member.name] = hashlib.sha256(member.data).hexdigest()
            try:
                headers[member.name] = read_header(member.data, shown(member.name))
            except InputError as error:
                bad[member.name] = str(error)
            bar.update()
    folders = {
        *names["folder"],
        *(above for each in names.values() for name in each for above in parents(name)),
    }
    layout = find_layout(checksums, folders, f"data={path}")
    train, test = (
        tuple(
            Entry(name, member, checksums[member], header[:2], header[2])
            for name, member in split.items()
            if (header := headers.get(member))
        )
        for split in (layout.train, layout.test)
    )
    used = {*layout.train.values(), *layout.test.values()}
    bad = {name: why for name, why in bad.items() if name in used}
    left = passed_over(layout, checksums, names["other"], names["system"])
    return Scan(path, layout.classes, train, test, left, layout.split, bad)


def digest_of(checksums: Iterable[tuple[str, str]]) -> str:
    """One SHA-256 over the sorted pairs (name, SHA-256 of the bytes): independent of how they are packed."""
    total = hashlib.sha256()
    for name, sha256 in sorted(checksums):
        total.update(f"{name}\0{sha256}\n".encode())
    return total.hexdigest()
