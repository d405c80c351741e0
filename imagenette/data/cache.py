"""Decoded data sets on disk: `HOME/cache/DIGEST-SIDE/`, and `HOME/index/` from fingerprints to digests.

A folder is made beside and renamed, so the one that is there is whole; what a disk did to it later is
seen by its sizes, and it is made again. Several processes and hosts may share one home: a lock keeps
them from doing the work twice, and where locks do not work, or are another user's, the rename alone keeps
the result right.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from imagenette.data.dataset import Split
from imagenette.data.decode import BadPictures, decode_into, find_damage
from imagenette.data.scan import Scan
from imagenette.errors import InputError, RunError
from imagenette.files import expanded, sync_folder

FORMAT = 1
"""Part of every key: raise it when the stored pixels or files change."""

INDEX = 2
"""Part of the index's names: raise it when digests change. 1 knew nothing of EXIF's orientation."""

ELSEWHERE = "IMAGENETTE_HOME=/another/folder keeps data sets there"

Log = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Stored:
    digest: str
    native: int
    """The longest side of any image in the source, in pixels."""
    classes: tuple[str, ...]
    train: Split
    test: Split
    bad: Mapping[str, str] = field(default_factory=dict)
    """What was left out: name inside the source -> why it cannot be read."""
    passed_over: str = ""
    """What lies in the source and was not taken, in one line."""
    split: str = ""
    """How the test set was made, in one line, where the source has none."""


class _DamagedError(Exception):
    pass


def home_folder(home: str | Path | None = None) -> Path:
    """The argument, else IMAGENETTE_HOME, else `$XDG_CACHE_HOME/imagenette` or `~/.cache/imagenette`.
    InputError for a user who has no home."""
    given = home or os.environ.get("IMAGENETTE_HOME")
    folder = expanded(given or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "imagenette"))
    if str(folder).startswith("~"):
        raise InputError(f"{folder}: there is no such home folder; {ELSEWHERE}")
    return folder.absolute()


def recall(home: Path, fingerprint: str, side: int, *, skip: bool = False) -> Stored | None:
    """What a source with this fingerprint held the last time; None if that is not known or not there, or if
    bad pictures were left out of it and that is not wanted now."""
    try:
        known = json.loads(_index_file(home, fingerprint).read_bytes())
        stored = _open(_folder(home, known["digest"], min(side, known["native"])), known["digest"])
        bad = dict(known.get("bad", {}))  # an entry may be older than these three
        if stored is None or (bad and not skip):
            return None
        return replace(stored, bad=bad, **{name: known.get(name, "") for name in ("passed_over", "split")})
    except (OSError, ValueError, TypeError, KeyError, _DamagedError):
        return None


def recall_digest(home: Path, digest: str) -> Stored | None:
    """What was decoded from images of this digest, wherever they lay, at the largest side there is; None
    where nothing was."""
    folders = {path.name.rpartition("-")[2]: path for path in (home / "cache").glob(f"{digest[:16]}-*")}
    for side in sorted(map(int, filter(str.isdecimal, folders)), reverse=True):
        with suppress(_DamagedError):
            if stored := _open(folders[str(side)], digest):
                return stored
    return None


def remember(home: Path, fingerprint: str, stored: Stored, log: Log) -> None:
    """Let the next start skip the reading. A home that cannot be written only costs that."""
    file = _index_file(home, fingerprint)
    beside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        about = {name: getattr(stored, name) for name in ("digest", "native", "bad", "passed_over", "split")}
        beside.write_text(json.dumps(about), encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        log(f"{file.parent} cannot be written ({error.strerror}): the next start reads all images again")


def store(home: Path, scan: Scan, side: int, *, skip: bool = False, progress: bool, log: Log) -> Stored:
    """Open what was decoded from the same images before, or decode them now, squashed to `side` or to
    the longest native side if that is shorter. skip: leave out what cannot be read, which is another set
    with another digest. Raises BadPictures with all there are, RunError where the home cannot be written;
    either leaves nothing behind."""
    if not skip:
        if scan.bad:
            raise BadPictures(scan.path, {**scan.bad, **find_damage(scan, progress=progress)})
        return _store(home, scan, side, progress, log)
    scan = scan.without({})
    try:
        stored = _store(home, scan, side, progress, log)
    except BadPictures as found:
        scan = scan.without(found.bad)
        stored = _store(home, scan, side, progress, log)
    return replace(stored, bad=scan.bad)


def _store(home: Path, scan: Scan, side: int, progress: bool, log: Log) -> Stored:
    side = min(side, scan.native)
    folder = _folder(home, scan.digest, side)
    try:
        try:
            if stored := _open(folder, scan.digest):
                return stored
        except _DamagedError:
            pass  # looked at again under the lock: another process may be mending it
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock"), log) as alone:
            try:
                if stored := _open(folder, scan.digest):
                    return stored
            except _DamagedError as damage:
                log(f"cache {folder} is damaged ({damage}): making it again")
            if alone:
                for left in folder.parent.glob(f".{folder.name}.*.new"):  # of a maker that was killed
                    shutil.rmtree(left, ignore_errors=True)
            _make(folder, scan, side, progress=progress)
        stored = _open(folder, scan.digest)
    except OSError as error:
        raise RunError(f"cannot write the cache {folder}: {error.strerror or error}; {ELSEWHERE}") from None
    except _DamagedError as damage:
        raise RunError(f"cache {folder} is damaged just after it was made ({damage})") from None
    assert stored is not None
    return stored


def _folder(home: Path, digest: str, side: int) -> Path:
    return home / "cache" / f"{digest[:16]}-{side}"


def _index_file(home: Path, fingerprint: str) -> Path:
    version = FORMAT if fingerprint.startswith("md5-") else INDEX  # no published archive has turned pictures
    return home / "index" / f"{fingerprint}-{version}.json"


def _make(folder: Path, scan: Scan, side: int, *, progress: bool) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    needed = (len(scan.train) + len(scan.test)) * side * side * 3
    if (free := shutil.disk_usage(folder.parent).free) < needed:
        raise RunError(
            f"cache {folder} needs {needed / 1e9:.1f} GB, and its disk has {free / 1e9:.1f} GB free"
        )
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.new")
    try:
        beside.mkdir()
        decode_into(beside, scan, side, progress=progress)
        _write_meta(beside, scan, side)
        try:
            beside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another host, with no lock between us, was first: same content
                raise
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_meta(folder: Path, scan: Scan, side: int) -> None:
    meta = {
        "format": FORMAT,
        "digest": scan.digest,
        "source": str(scan.path),
        "side": side,
        "native": scan.native,
        "classes": scan.classes,
        "files": {file.name: file.stat().st_size for file in sorted(folder.iterdir())},
        "names": {"train": [e.name for e in scan.train], "test": [e.name for e in scan.test]},
    }
    with (folder / "meta.json").open("w", encoding="utf-8") as file:
        json.dump(meta, file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def _open(folder: Path, digest: str) -> Stored | None:
    """None where there is no such folder. Raises _DamagedError; RunError where it may not be read."""
    if not folder.is_dir():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        if (meta["format"], meta["digest"]) != (FORMAT, digest):
            raise _DamagedError("made from other images or by another version")
        for name, size in meta["files"].items():
            if (folder / name).stat().st_size != size:
                raise _DamagedError(f"{name} has not {size} bytes")
        train, test = (_open_split(folder, split, meta["names"][split]) for split in ("train", "test"))
        return Stored(digest, meta["native"], tuple(meta["classes"]), train, test)
    except PermissionError:
        raise RunError(f"cannot read the cache {folder}: it is another user's; {ELSEWHERE}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _DamagedError(" ".join(str(error).split())) from None


def _open_split(folder: Path, split: str, names: list[str]) -> Split:
    def load(what: str, mode: Any) -> Any:
        return np.load(folder / f"{split}-{what}.npy", mmap_mode=mode, allow_pickle=False)

    part = Split(load("images", "c"), load("labels", None), load("sizes", None), tuple(names))
    if not len(part.images) == len(part.labels) == len(part.sizes) == len(part.names):
        raise _DamagedError(f"{split} has parts of different lengths")
    return part


@contextmanager
def _locked(file: Path, log: Log) -> Iterator[bool]:
    """Whether the lock is really held: some network file systems have none, some users' files are closed."""
    lock = None
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # reading is enough to wait for another user
        with suppress(OSError):
            lock = lock or os.open(file, flags, 0o666)
    try:
        yield lock is not None and _lock(lock, file, log)
    finally:
        if lock is not None:
            os.close(lock)


def _lock(lock: int, file: Path, log: Log) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log(f"waiting for another process which makes {file.name[1:].removesuffix('.lock')}")
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
