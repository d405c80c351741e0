"""The bytes of a folder, tar or zip, as a stream of named members; nothing is unpacked to disk.

Refuses whatever is not a plain file or folder inside the archive, and archives that end early: a cut
tar is otherwise read as a shorter one without a word.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from imagenette.data.layout import shown
from imagenette.errors import InputError, as_line

MAX_BYTES = 256 * 2**20
"""Of one image file: a member is held in memory whole."""

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError)

_Bytes = IO[bytes] | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile


@dataclass(frozen=True)
class Member:
    name: str
    """Relative path with forward slashes, safe to join to a folder."""
    data: bytes | None
    """A wanted file's bytes; None for a folder."""


def members(path: Path, wants: Callable[[str], bool]) -> Iterator[Member]:
    """Every folder, and every file whose name is wanted, in stored order (folders: sorted). Hidden
    names are left out; of an unwanted file only its folder is given. Raises InputError.
    """
    with _reading(path):
        if path.is_dir():
            found = _folder_members(path, wants)
        elif _magic(path).startswith(b"PK"):
            found = _zip_members(path, wants)
        else:
            found = _tar_members(path, wants)
        seen: set[str] = set()
        for member in found:
            if member.data is not None:
                if member.name in seen:
                    raise InputError(f"data={path}: {shown(member.name)} is in the archive twice")
                seen.add(member.name)
            if member.name and not _is_hidden(member.name):
                yield member


def fingerprint(path: Path, wants: Callable[[str], bool]) -> str:
    """64 hexadecimal digits which change when the source does, from names, sizes and times alone: tens
    of milliseconds where reading every byte takes seconds. Raises InputError."""
    with _reading(path):
        real = os.path.realpath(path)
        if path.is_dir():
            walk = [(name, None if folder else (s.st_size, s.st_mtime_ns)) for name, s, folder in _walk(path)]
            about: list[object] = ["folder", real, sorted((n, s) for n, s in walk if s is None or wants(n))]
        else:
            s = path.stat()
            about = ["file", real, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def safe_name(raw: str, source: str) -> str:
    """A member's name with `.` and double slashes gone. Raises InputError where it is absolute or
    climbs with `..`, in either kind of slash."""
    name = "/".join(part for part in raw.split("/") if part not in {"", "."})
    if any(re.match(r"[/\\]|[A-Za-z]:[/\\]", text) for text in (raw, name)):
        raise InputError(f"{source}: member {shown(raw)} has an absolute path; only relative ones are read")
    if ".." in re.split(r"[/\\]", raw):
        raise InputError(f"{source}: member {shown(raw)} leaves the archive through '..'")
    return name


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        if error.errno is None:  # gzip's and bz2's way to say damaged
            raise InputError(f"data={path}: truncated or damaged: {as_line(error)}") from None
        where = f" ({shown(str(error.filename))})" if error.filename not in {None, str(path)} else ""
        raise InputError(f"data={path}: cannot be read: {error.strerror}{where}") from None
    except (NotImplementedError, RuntimeError) as error:  # zip: unknown compression, encryption
        raise InputError(f"data={path}: cannot be read: {as_line(error)}") from None
    except _DAMAGE as error:
        raise InputError(f"data={path}: truncated or damaged: {as_line(error)}") from None


def _folder_members(root: Path, wants: Callable[[str], bool]) -> Iterator[Member]:
    for name, status, is_folder in _walk(root):
        if is_folder:
            yield Member(name, None)
        elif wants(name):
            yield Member(name, _read_whole((root / name).open("rb"), name, status.st_size, root))


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result, bool]]:
    """(relative name, status, is a folder) of all that is not hidden. Links are followed: what a user
    linked into a folder of their own is meant; what a downloaded archive links to is not."""
    pending = [("", frozenset[tuple[int, int]]())]
    while pending:
        folder, above = pending.pop()
        status = os.stat(root / folder)  # noqa: PTH116 - follows links, as scandir's stat below
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise InputError(f"data={root}: {shown(folder)} links back to a folder above it")
        with os.scandir(root / folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if entry.name.startswith("."):
                continue
            name, status = f"{folder}{entry.name}", entry.stat()
            if stat.S_ISDIR(status.st_mode):
                pending.append((f"{name}/", above | {here}))
                yield name, status, True
            elif stat.S_ISREG(status.st_mode):
                yield name, status, False
            else:
                raise InputError(f"data={root}: {shown(name)} is not a plain file or folder")


class _StrictTarInfo(tarfile.TarInfo):
    """tarfile takes a damaged header, or the lack of the end mark, for the end: here both are damage."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise  # a block of zeros: the proper end
            raise tarfile.ReadError(str(error)) from None


def _tar_members(path: Path, wants: Callable[[str], bool]) -> Iterator[Member]:
    # A stream, whatever the compression: one pass in stored order, with one member in memory.
    with _decompressed(path) as raw, _open_tar(raw, path) as tar:
        for info in tar:
            name = safe_name(info.name, f"data={path}")
            if info.isdir():
                yield Member(name, None)
            elif not info.isreg():
                raise InputError(_special(path, info.name, _tar_kind(info)))
            elif wants(name):
                stream = tar.extractfile(info)
                assert stream is not None
                yield Member(name, _read_whole(stream, name, info.size, path))
            else:
                yield Member(name.rpartition("/")[0], None)
        while raw.read(2**20):  # to the end, where gzip and xz keep their checksums
            pass


def _open_tar(raw: _Bytes, path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=raw, mode="r|", bufsize=2**18, tarinfo=_StrictTarInfo)
    except tarfile.ReadError as error:
        allowed = "a folder or a tar, tar.gz, tgz, tar.bz2, tar.xz or zip"
        raise InputError(f"data={path}: not {allowed}, or damaged: {as_line(error)}") from None


@contextmanager
def _decompressed(path: Path) -> Iterator[_Bytes]:
    magic = _magic(path)
    with path.open("rb") as plain:
        if magic.startswith(b"\x1f\x8b"):
            with gzip.open(plain) as raw:
                yield raw
        elif magic.startswith(b"BZh"):
            with bz2.open(plain) as raw:
                yield raw
        elif magic == b"\xfd7zXZ\0":
            with lzma.open(plain) as raw:
                yield raw
        else:
            yield plain


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(6)


def _tar_kind(info: tarfile.TarInfo) -> str:
    kinds = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link", tarfile.FIFOTYPE: "fifo"}
    return kinds.get(info.type, "device" if info.isdev() else "special file")


def _zip_members(path: Path, wants: Callable[[str], bool]) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = safe_name(info.filename, f"data={path}")
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the writer was not a Unix
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                what = "symbolic link" if kind == stat.S_IFLNK else "special file"
                raise InputError(_special(path, info.filename, what))
            if info.is_dir():
                yield Member(name, None)
            elif wants(name):
                with archive.open(info) as stream:
                    yield Member(name, _read_whole(stream, name, info.file_size, path))
            else:
                yield Member(name.rpartition("/")[0], None)


def _special(path: Path, name: str, kind: str) -> str:
    return f"data={path}: member {shown(name)} is a {kind}; only plain files and folders are read"


def _read_whole(stream: IO[bytes], name: str, size: int, path: Path) -> bytes:
    with stream:
        if size > MAX_BYTES:
            limit = MAX_BYTES // 2**20
            raise InputError(
                f"data={path}: {shown(name)} has {size} bytes; at most {limit} MiB an image are read"
            )
        return stream.read()


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
