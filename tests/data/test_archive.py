from __future__ import annotations

import os
import socket
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imagenette.data.archive import MAX_BYTES, fingerprint, members, safe_name
from imagenette.errors import InputError
from tests.data.small_sets import Files, add, pack, refusal

PACKED = ["set.tar", "set.tar.gz", "set.tgz", "set.tar.bz2", "set.tar.xz", "set.tar.zst", "set.zip"]


def contents(path: Path) -> Files:
    return {m.name: m.data for m in members(path) if m.data is not None}


def folders(path: Path) -> set[str]:
    return {m.name for m in members(path) if m.kind == "folder"}


@pytest.mark.parametrize("name", [*PACKED, "set"])
def test_every_container_gives_the_same_members(tmp_path: Path, files: Files, name: str) -> None:
    noise = {
        "train/cat/.hidden.jpg": b"x",
        ".git/a.png": b"x",
        "noisy_imagenette.csv": b"x",
        "train/README": b"x",
    }
    path = pack(files | noise, tmp_path / name, top="top/", folders=("train/empty",))
    assert contents(path) == {f"top/{each}": data for each, data in files.items()}
    assert "top/train/empty" in folders(path)
    others = {(m.name, m.kind) for m in members(path) if m.data is None and m.kind != "folder"}
    system = {("top/train/cat/.hidden.jpg", "system"), ("top/.git", "system")}
    assert others == system | {("top/noisy_imagenette.csv", "other"), ("top/train/README", "other")}


def test_type_is_told_by_content_and_not_by_name(tmp_path: Path, files: Files) -> None:
    path = pack(files, tmp_path / "set.tgz").rename(tmp_path / "set.zip")
    assert contents(path) == files


def test_dot_slash_prefix_of_tar_is_taken_off(tmp_path: Path, files: Files) -> None:
    assert contents(pack(files, tmp_path / "set.tar", top="./")) == files


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_archive_is_refused(tmp_path: Path, files: Files, name: str, share: float) -> None:
    path = pack(files, tmp_path / name)
    data = path.read_bytes()
    end = len(data.rstrip(b"\0")) if name == "set.tar" else len(data)
    path.write_bytes(data[: int(end * share)])
    with pytest.raises(InputError, match="damaged") as caught:
        contents(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tar_cut_between_members_is_not_taken_for_a_shorter_one(tmp_path: Path, files: Files) -> None:
    path = pack(files, tmp_path / "set.tar")
    with tarfile.open(path) as archive:
        starts = [info.offset for info in archive][1:]
    data = path.read_bytes()
    for start in starts:
        path.write_bytes(data[:start])
        with pytest.raises(InputError, match="truncated or damaged"):
            contents(path)


def test_gzip_whose_checksum_is_cut_off_is_refused(tmp_path: Path, files: Files) -> None:
    path = pack(files, tmp_path / "set.tgz")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="truncated or damaged"):
        contents(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(PACKED), st.floats(0, 0.999), st.integers(1, 255))
def test_flipped_byte_gives_members_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, where: float, flip: int
) -> None:
    path = pack(
        {"train/a/1.jpg": b"abc" * 99, "val/a/1.jpg": b"def" * 99}, tmp_path_factory.mktemp("f") / name
    )
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= flip
    path.write_bytes(data)
    if message := refusal(lambda: contents(path)):
        assert "\n" not in message
        assert str(path) in message


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "not a folder or a tar"), (b"just text\n" * 200, "not a folder or a tar"), (b"\0" * 10_240, None)],
)
def test_file_that_is_no_archive_is_refused(tmp_path: Path, data: bytes, message: str | None) -> None:
    path = tmp_path / "set.tar"
    path.write_bytes(data)
    if message is None:  # a tar of nothing; the layout refuses it
        assert contents(path) == {}
        return
    with pytest.raises(InputError, match=message):
        contents(path)


def tar_with(name: str = "train/a/x.jpg", **member: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with tarfile.open(folder / "set.tar", "w") as archive:
            add(archive, "train/a/1.jpg", b"1")
            add(archive, name, **member)  # type: ignore[arg-type]
        return folder / "set.tar"

    return make


def zip_with(name: str, mode: int = 0o100644) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "set.zip", "w") as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "target")
        return folder / "set.zip"

    return make


UNSAFE = {
    "tar absolute": (tar_with("/etc/x.jpg"), "/etc/x.jpg has an absolute path"),
    "tar climbing": (tar_with("train/../../x.jpg"), r"train/../../x.jpg leaves the archive"),
    "tar climbing, unwanted": (tar_with("../x.sh"), "leaves the archive"),
    "tar hidden and climbing": (tar_with(".a/../../x"), "leaves the archive"),
    "tar symbolic link": (tar_with(kind=tarfile.SYMTYPE, link="/etc/passwd"), "is a symbolic link"),
    "tar hard link": (tar_with(kind=tarfile.LNKTYPE, link="train/a/1.jpg"), "is a hard link"),
    "tar fifo": (tar_with(kind=tarfile.FIFOTYPE), "is a fifo"),
    "tar device": (tar_with(kind=tarfile.CHRTYPE), "is a device"),
    "tar block device": (tar_with(kind=tarfile.BLKTYPE), "is a device"),
    "tar twice": (tar_with("train/a/./1.jpg"), "twice"),
    "zip absolute": (zip_with("/x.jpg"), "absolute path"),
    "zip climbing": (zip_with("a/../x.jpg"), "leaves the archive"),
    "zip windows": (zip_with("C:\\x.jpg"), "absolute path"),
    "zip symbolic link": (zip_with("train/a/x.jpg", 0o120777), "is a symbolic link"),
    "zip fifo": (zip_with("train/a/x.jpg", 0o010644), "is a special file"),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_unsafe_member_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    make, message = UNSAFE[what]
    path = make(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        contents(path)
    assert "\n" not in str(caught.value)


class _MacInfo(zipfile.ZipInfo):
    """Its name in UTF-8, without the mark that says so."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile calls it so
        return self.filename.encode(), self.flag_bits & ~0x800


@pytest.mark.parametrize(("name", "kind"), [("cafe\u0301", _MacInfo), ("caf\xe9", zipfile.ZipInfo)])
def test_names_in_a_zip_are_utf8_whether_it_says_so_or_not(
    tmp_path: Path, name: str, kind: type[zipfile.ZipInfo]
) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(kind(f"train/{name}/1.jpg"), b"x")
    assert contents(tmp_path / "set.zip") == {f"train/{name}/1.jpg": b"x"}


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = pack({"train/a/1.jpg": b"x" * 20}, tmp_path / "set.zip")
    data = path.read_bytes()
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(mark) + flags
        data = data[:at] + b"\x01" + data[at + 1 :]
    path.write_bytes(data)
    with pytest.raises(InputError, match="encrypted"):
        contents(path)


def test_member_larger_than_any_image_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "set.tar").open("wb") as out:
        info = tarfile.TarInfo("train/a/1.jpg")
        info.size = MAX_BYTES + 1
        out.write(info.tobuf())
        out.truncate(info.size + 2048)
    with pytest.raises(InputError, match="at most 256 MiB"):
        contents(tmp_path / "set.tar")


PATHS = st.text(st.sampled_from("ab./\\:C~ é\n"), min_size=1, max_size=12)


@given(PATHS)
@example("./\\")
def test_safe_names_stay_inside_and_are_settled(raw: str) -> None:
    if message := refusal(lambda: safe_name(raw, "data=x")):
        assert "\n" not in message
        first = next((part for part in raw.split("/") if part not in {"", "."}), "")
        assert raw[0] in "/\\" or first.startswith("\\") or ":" in raw or ".." in raw
        return
    name = safe_name(raw, "data=x")
    assert not name.startswith("/")
    assert ".." not in name.split("/")
    assert safe_name(name, "data=x") == name
    assert os.path.normpath(Path("/base") / name).startswith("/base")


def test_links_in_a_users_own_folder_are_followed(tmp_path: Path, files: Files) -> None:
    real = pack(files, tmp_path / "real")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "train").symlink_to(real / "train")
    (linked / "val").mkdir()
    for label in ("cat", "dog"):
        (linked / "val" / label).symlink_to(real / "val" / label)
    assert contents(linked) == files


def _loop(folder: Path) -> None:
    (folder / "again").symlink_to(folder)


def _broken_link(folder: Path) -> None:
    (folder / "x.jpg").symlink_to(folder / "nowhere")


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "x.jpg")


def _socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # socket paths are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("x.jpg")
    os.chdir(here)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_loop, "links back"),
        (_broken_link, "No such file"),
        (_fifo, "not a plain file"),
        (_socket, "not a plain file"),
    ],
)
def test_folder_with_what_cannot_be_read_is_refused_not_waited_for(
    tmp_path: Path, files: Files, spoil: Callable[[Path], None], message: str
) -> None:
    path = pack(files, tmp_path / "set")
    spoil(path / "train" / "cat")
    for read in (contents, fingerprint):
        with pytest.raises(InputError, match=message):
            read(path)


@pytest.mark.parametrize("name", ["set", "set.tar"])
def test_fingerprint_changes_with_the_source_alone(tmp_path: Path, files: Files, name: str) -> None:
    path = pack(files, tmp_path / name)
    first = fingerprint(path)
    assert fingerprint(path) == first
    if path.is_dir():
        (path / "README").write_text("no image")
        first, before = fingerprint(path), first
        assert first != before, "another file is passed over, which is said"
        (path / "README").write_text("still no image")
        assert fingerprint(path) == first
        (path / "train/cat/new.png").write_bytes(b"x")
    else:
        os.utime(path, ns=(1, 1))
    assert fingerprint(path) != first
