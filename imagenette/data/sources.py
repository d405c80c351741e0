"""What `data=` may name, and the way from there to a `Dataset`. Refuses a maimed Imagenette."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from imagenette.data import cache
from imagenette.data.archive import fingerprint
from imagenette.data.dataset import Dataset
from imagenette.data.decode import told
from imagenette.data.digits import open_digits
from imagenette.data.download import fetch
from imagenette.data.scan import Scan, scan
from imagenette.errors import InputError, shown
from imagenette.files import expanded

MIRROR = "https://s3.amazonaws.com/fast-ai-imageclas"
"""Where the published archives lie, unless IMAGENETTE_MIRROR says otherwise."""

MAX_SIDE = 4096


@dataclass(frozen=True)
class Published:
    file: str
    md5: str
    """As in `torchvision.datasets.Imagenette`."""


PUBLISHED = {
    "imagenette": Published("imagenette2.tgz", "fe2fc210e6bb7c5664d602c3cd71e612"),
    "imagenette-320px": Published("imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3"),
    "imagenette-160px": Published("imagenette2-160.tgz", "e793b78cc4c9e9a4ccc0c1155377a412"),
}

# WordNet id: (class, training images, test images), the same in all three archives.
IMAGENETTE = {
    "n01440764": ("tench", 963, 387),
    "n02102040": ("English springer", 955, 395),
    "n02979186": ("cassette player", 993, 357),
    "n03000684": ("chain saw", 858, 386),
    "n03028079": ("church", 941, 409),
    "n03394916": ("French horn", 956, 394),
    "n03417042": ("garbage truck", 961, 389),
    "n03425413": ("gas pump", 931, 419),
    "n03445777": ("golf ball", 951, 399),
    "n03888257": ("parachute", 960, 390),
}


def say(line: str) -> None:
    print(shown(line), file=sys.stderr)


def open_dataset(
    source: str | Path,
    *,
    side: int = 256,
    home: str | Path | None = None,
    bad_pictures: str = "refuse",
    progress: bool = True,
    log: Callable[[str], None] = say,
) -> Dataset:
    """Open `digits`, a published archive by name, or a folder or archive by path.

    `side`: pixels per side of the stored squares, at most; smaller sets are not enlarged. `home`: where
    downloads and decoded sets are kept, see `cache.home_folder`. `bad_pictures`: the knob; where some are
    left out, `log` is told which, each time. `progress`: bars, on a terminal only.
    Raises InputError for anything wrong with the source, RunError for the network and the disk.
    """
    source = str(source)
    if not 1 <= side <= MAX_SIDE:
        raise InputError(f"side={side}: allowed are 1 to {MAX_SIDE} pixels")
    if source == "digits":
        return open_digits(side)
    folder = cache.home_folder(home)
    progress = progress and sys.stderr.isatty()
    opener = _open_published if source in PUBLISHED else _open_path
    return opener(source, side, folder, bad_pictures == "skip", progress, log)


def _open_published(name: str, side: int, home: Path, skip: bool, progress: bool, log: cache.Log) -> Dataset:
    archive = PUBLISHED[name]
    url = f"{(os.environ.get('IMAGENETTE_MIRROR') or MIRROR).rstrip('/')}/{archive.file}"
    key = f"md5-{archive.md5}"  # names the content, so a warm start needs neither network nor archive
    stored = cache.recall(home, key, side, skip=skip)
    if stored is None:
        path = fetch(url, archive.md5, home / "downloads", progress=progress, log=log)
        scanned = scan(path, progress=progress)
        if message := _compare_with_imagenette(_counts(scanned)):
            raise InputError(f"data={name}: {message}")
        stored = cache.store(home, scanned, side, skip=skip, progress=progress, log=log)
        cache.remember(home, key, stored, log)
    return _dataset(name, url, stored)


def _open_path(source: str, side: int, home: Path, skip: bool, progress: bool, log: cache.Log) -> Dataset:
    path = expanded(source)
    if not source or not path.exists():
        allowed = ", ".join(["digits", *PUBLISHED])
        raise InputError(f"data={source}: no such file or folder; allowed are {allowed}, or a path")
    key = fingerprint(path)
    stored = cache.recall(home, key, side, skip=skip)
    if stored is None:
        scanned = scan(path, progress=progress)
        message = _compare_with_imagenette(_counts(scanned))
        if message and IMAGENETTE.keys() - scanned.classes:
            raise InputError(f"data={source}: {message}")
        stored = cache.store(home, scanned, side, skip=skip, progress=progress, log=log)
        stored = replace(stored, passed_over=scanned.passed_over, split=scanned.split)
        if fingerprint(path) == key:  # else it changed meanwhile: read it again next time
            cache.remember(home, key, stored, log)
    if stored.bad:
        log(f"data={source}: {told(stored.bad)}: left out")
    if message := _compare_with_imagenette(_counts(stored)):
        log(f"data={source}: {message}")
    if stored.split:
        log(f"data={source}: {stored.split}")
    if stored.passed_over:
        log(f"data={source}: passed over: {stored.passed_over}")
    real = path.resolve()
    return _dataset(real.name.split(".")[0] or real.name, str(real), stored)


Counts = dict[str, tuple[int, int]]
"""Class: (training images, test images)."""


def _counts(data: Scan | cache.Stored) -> Counts:
    names = (
        ([entry.name for entry in data.train], [entry.name for entry in data.test])
        if isinstance(data, Scan)
        else (data.train.names, data.test.names)
    )
    train, test = (Counter(name.split("/")[1] for name in each) for each in names)
    return {label: (train[label], test[label]) for label in data.classes}


def _compare_with_imagenette(counts: Counts) -> str | None:
    """What differs from the published set, in one line. None for the same classes and counts, and for
    sets that share no class with it."""
    if not counts.keys() & IMAGENETTE.keys():
        return None
    if missing := sorted(IMAGENETTE.keys() - counts.keys()):
        names = ", ".join(f"{wnid} ({IMAGENETTE[wnid][0]})" for wnid in missing)
        what = f"class {names} is" if len(missing) == 1 else f"classes {names} are"
        return f"{what} missing; Imagenette has ten classes"
    if extra := sorted(counts.keys() - IMAGENETTE.keys()):
        return f"{len(extra)} classes beside Imagenette's ten, such as {extra[0]}: not the published set"
    for wnid, (label, train, test) in IMAGENETTE.items():
        if counts[wnid] != (train, test):
            found = f"{counts[wnid][0]} training and {counts[wnid][1]} test images"
            return f"class {wnid} ({label}) has {found}; published are {train} and {test}"
    return None


def _dataset(name: str, source: str, stored: cache.Stored) -> Dataset:
    labels = tuple(IMAGENETTE[wnid][0] if wnid in IMAGENETTE else wnid for wnid in stored.classes)
    return Dataset(name, source, stored.digest, stored.classes, labels, stored.train, stored.test)
