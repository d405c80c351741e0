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
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from imagenette.data.images import HEAD, is_image_head, is_image_name
from imagenette.data.walk import Kind, system_entry, walk
from imagenette.errors import InputError, as_line, shown

MAX_BYTES = 256 * 2**20
"""Of one image file: a member is held in memory whole."""

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError)

_Bytes = IO[bytes] | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile


@dataclass(frozen=True)
class Member:
    name: str
    """Relative path with forward slashes, safe to join to a folder."""
    kind: Kind
    data: bytes | None = None
    """A wanted picture's bytes."""


Wants = Callable[[str], bool] | None


def members(path: Path, wants: Wants = None) -> Iterator[Member]:
    """All that a source holds, in stored order (folders: sorted); of the pictures, those whose name is wanted
    have their bytes. A system entry comes once, without what is below it. Raises InputError."""
    with _reading(path):
        if path.is_dir():
            found = _folder_members(path, wants)
        elif _magic(path).startswith(b"PK"):
            found = _zip_members(path, wants)
        else:
            found = _tar_members(path, wants)
        seen: set[str] = set()
        for member in found:
            if member.kind == "picture" and member.name in seen:
                raise InputError(f"data={path}: {shown(member.name)} is in the archive twice")
            if member.name and (member.kind != "system" or member.name not in seen):
                yield member
            if member.kind in {"picture", "system"}:
                seen.add(member.name)


READING = 2
"""Part of every fingerprint: raise it when other files of a source become its data set. Each source is then
read once more; what was decoded is kept."""


def fingerprint(path: Path) -> str:
    """64 hexadecimal digits which change when the source does, from names, sizes and times alone: tens
    of milliseconds where reading every byte takes seconds. Raises InputError."""
    with _reading(path):
        about: list[object] = [READING, os.path.realpath(path)]
        if path.is_dir():
            about += sorted(
                (
                    f.name,
                    f.kind,
                    *((f.status.st_size, f.status.st_mtime_ns) if f.status and f.kind == "picture" else ()),
                )
                for f in walk(path, _refuse(path))
            )
        else:
            s = path.stat()
            about += [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def safe_name(raw: str, source: str) -> str:
    """A member's name with forward slashes (some programs of Windows write the other kind), `.` and double
    slashes gone. Raises InputError where it is absolute or climbs with `..`."""
    name = "/".join(part for part in re.split(r"[/\\]", raw) if part not in {"", "."})
    if any(re.match(r"[/\\]|[A-Za-z]:[/\\]", text) for text in (raw, name)):
        raise InputError(f"{source}: member {shown(raw)} has an absolute path; only relative ones are read")
    if ".." in name.split("/"):
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


def _refuse(path: Path) -> Callable[[str], None]:
    def refuse(why: str) -> None:
        raise InputError(f"data={path}: {why}")

    return refuse


def _folder_members(root: Path, wants: Wants) -> Iterator[Member]:
    for found in walk(root, _refuse(root)):
        if found.kind == "picture" and (wants is None or wants(found.name)):
            assert found.status
            stream = (root / found.name).open("rb")
            yield _picture(stream, found.name, found.status.st_size, root, wants)
        else:
            yield Member(found.name, found.kind)


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


def _tar_members(path: Path, wants: Wants) -> Iterator[Member]:
    # A stream, whatever the compression: one pass in stored order, with one member in memory.
    with _decompressed(path) as raw, _open_tar(raw, path) as tar:
        for info in tar:
            name = safe_name(info.name, f"data={path}")
            if system := system_entry(name):
                yield Member(system, "system")
            elif info.isdir():
                yield Member(name, "folder")
            elif not info.isreg():
                raise InputError(_special(path, info.name, _tar_kind(info)))
            else:
                stream = tar.extractfile(info)
                assert stream is not None
                yield _picture(stream, name, info.size, path, wants)
        while raw.read(2**20):  # to the end, where gzip and xz keep their checksums
            pass


def _open_tar(raw: _Bytes, path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=raw, mode="r|", bufsize=2**18, tarinfo=_StrictTarInfo, encoding="utf-8")
    except tarfile.ReadError as error:
        allowed = "a folder or a tar, tar.gz, tgz, tar.bz2, tar.xz, tar.zst or zip"
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
        elif magic.startswith(b"\x28\xb5\x2f\xfd"):
            with _zstd(plain) as raw:
                yield raw
        else:
            yield plain


@contextmanager
def _zstd(plain: IO[bytes]) -> Iterator[IO[bytes]]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    try:
        with zstd.open(plain) as raw:
            yield cast(IO[bytes], raw)
    except zstd.ZstdError as error:
        raise tarfile.ReadError(str(error)) from None


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(6)


def _tar_kind(info: tarfile.TarInfo) -> str:
    kinds = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link", tarfile.FIFOTYPE: "fifo"}
    return kinds.get(info.type, "device" if info.isdev() else "special file")


def _zip_members(path: Path, wants: Wants) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = safe_name(_zip_name(info), f"data={path}")
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the writer was not a Unix
            if system := system_entry(name):
                yield Member(system, "system")
            elif kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                what = "symbolic link" if kind == stat.S_IFLNK else "special file"
                raise InputError(_special(path, info.filename, what))
            elif info.filename.endswith(("/", "\\")):
                yield Member(name, "folder")
            else:
                with archive.open(info) as stream:
                    yield _picture(stream, name, info.file_size, path, wants)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """macOS writes UTF-8 and does not say so; zipfile then takes it for the code page of DOS."""
    try:
        return info.filename if info.flag_bits & 0x800 else info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _special(path: Path, name: str, kind: str) -> str:
    return f"data={path}: member {shown(name)} is a {kind}; only plain files and folders are read"


def _picture(stream: IO[bytes], name: str, size: int, path: Path, wants: Wants) -> Member:
    """A plain file's member, read whole if it is a picture and wanted, and closed."""
    with stream:
        if wants is not None and not wants(name):
            return Member(name, "other")
        head = b"" if is_image_name(name) else stream.read(HEAD)
        if not is_image_name(name) and not is_image_head(name, head):
            return Member(name, "other")
        if size > MAX_BYTES:
            limit = MAX_BYTES // 2**20
            raise InputError(
                f"data={path}: {shown(name)} has {size} bytes; at most {limit} MiB an image are read"
            )
        return Member(name, "picture", head + stream.read())
