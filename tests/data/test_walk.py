"""One rule for what of a source is read, in whatever packing, and each thing that is passed over is said."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from imagenette.data import open_dataset
from imagenette.data.walk import system_entry
from imagenette.serving.predict import find_pictures
from tests.data.small_sets import Files, encode, pack, picture

THUMB = encode(picture(7))
NOISE = {
    "train/cat/@eaDir/0.JPEG/SYNOPHOTO_THUMB_M.jpg": THUMB,
    "train/@eaDir/x.jpg": THUMB,
    "val/__MACOSX/cat/._0.jpg": b"\0\5\x16\7" + bytes(60),
    "val/cat/._0.JPEG": b"\0\5\x16\7" + bytes(60),
    "val/cat/Thumbs.db": THUMB,
    "val/.ipynb_checkpoints/0-checkpoint.jpg": THUMB,
    "train/lost+found/x.jpg": THUMB,
    "@Recycle/train/cat/x.jpg": THUMB,
}


def zip_of_windows(files: Files, path: Path) -> Path:
    """Every other member named with backslashes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("train\\"), b"")
        for index, (name, data) in enumerate(files.items()):
            archive.writestr(zipfile.ZipInfo(name.replace("/", "\\") if index % 2 else name), data)
    return path


@pytest.mark.parametrize("name", ["set", "set.tar", "set.tar.zst", "set.zip", "windows.zip"])
def test_what_systems_put_beside_pictures_is_never_data_and_said_each_time(
    tmp_path: Path, files: Files, name: str
) -> None:
    clean = open_dataset(pack(files, tmp_path / "clean.tar"))
    notes = {"train/cat/notes.txt": b"see below", "val/dog/labels": b"BM of a text", "README": b"x"}
    dirty = files | NOISE | notes
    path = zip_of_windows(dirty, tmp_path / name) if "windows" in name else pack(dirty, tmp_path / name)
    for _ in range(2):
        lines: list[str] = []
        data = open_dataset(path, log=lines.append)
        assert (data.digest, data.classes) == (clean.digest, ("cat", "dog"))
        (line,) = lines
        assert "no pictures (JPEG, " in line
        assert "): 2, such as train/cat/notes.txt" in line
        assert line.endswith("; hidden or system entries: 7, such as train/@eaDir")


@pytest.mark.parametrize("name", ["set", "set.tgz", "set.zip"])
def test_a_picture_counts_whatever_its_name_ends_in(tmp_path: Path, files: Files, name: str) -> None:
    odd = {f"train/cat/x{end}": encode(picture(1)) for end in (".jfif", ".JPE", "", ".jpg_large")}
    odd |= {f"val/dog/{kind}.bin": encode(picture(2), kind) for kind in ("GIF", "AVIF", "PNG", "WEBP")}
    lines: list[str] = []
    data = open_dataset(pack(files | odd, tmp_path / name), log=lines.append)
    assert {*data.train.names, *data.test.names} == {*files, *odd}
    assert lines == []


def test_a_copy_or_half_a_download_is_passed_over(tmp_path: Path, files: Files) -> None:
    odd = {f"train/cat/0.JPEG{end}": encode(picture(1)) for end in ("~", ".bak", ".part")}
    lines: list[str] = []
    assert len(open_dataset(pack(files | odd, tmp_path / "set"), log=lines.append).train) == 6
    assert "): 3, such as train/cat/0.JPEG.bak" in lines[0]


@pytest.mark.parametrize("name", ["@eaDir", "a/THUMBS.DB", "lost+found/x", "a/.b/c", "#recycle", "._x.jpg"])
def test_system_entries(name: str) -> None:
    assert system_entry(name)
    assert system_entry(f"train/{name}") == f"train/{system_entry(name)}"


@pytest.mark.parametrize("name", ["@home/x.jpg", "thumbs/x.jpg", "lost and found/~/x.jpg", "#1/x.jpg"])
def test_classes_may_be_called_what_they_like(name: str) -> None:
    assert system_entry(name) is None


def test_a_class_in_two_unicode_forms_has_its_pictures_from_both(tmp_path: Path) -> None:
    files = {
        f"{where}/{i}.png": encode(picture(i), "PNG") for where in ("train/b", "val/b") for i in range(2)
    }
    files |= {
        "train/cafe\u0301/1.png": encode(picture(5), "PNG"),
        "val/caf\xe9/1.png": encode(picture(6), "PNG"),
    }
    data = open_dataset(pack(files, tmp_path / "set.tar"))
    assert data.classes == ("b", "caf\xe9")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 1], [0, 0, 1])
    assert data.train.names[-1] == "train/caf\xe9/1.png"


def test_predict_reads_of_a_folder_what_training_would(tmp_path: Path, files: Files) -> None:
    odd = {"val/cat/x.jfif": THUMB, "val/cat/none": THUMB, "val/cat/notes.txt": b"x"}
    path = pack(files | NOISE | odd, tmp_path / "set")
    trained = set(open_dataset(path).test.names)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "val").symlink_to(path / "val")
    (tmp_path / "linked" / "again").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "gone.jpg").symlink_to("nowhere")
    over: list[Path] = []
    unread: list[str] = []
    found = find_pictures([tmp_path / "linked"], unread=unread.append, over=over.append)
    assert {str(file.relative_to(tmp_path / "linked")) for file in found} == trained
    assert tmp_path / "linked" / "val/cat/notes.txt" in over
    assert sorted(unread) == [
        f"{tmp_path}/linked: again/ links back to a folder above it",
        f"{tmp_path}/linked: gone.jpg: No such file or directory",
    ]


def test_a_cut_zst_is_refused(tmp_path: Path, files: Files) -> None:
    path = pack(files, tmp_path / "set.tar.zst")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="truncated or damaged"):
        open_dataset(path)
