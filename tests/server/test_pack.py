"""A backup's file is whole, or is refused by the name of what is wrong."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from imagenette.errors import InputError
from imagenette.server.pack import Packer, unpack

FILES = {
    "optuna.dump": b"trials" * 1000,
    "mlflow.dump": b"runs" * 1000,
    "artifacts/1/a/model.bin": bytes(range(256)) * 40,
    "artifacts/1/a/empty": b"",
    f"artifacts/{'long' * 60}/é.txt": b"text",
}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    for number, content in enumerate(FILES.values()):
        (tmp_path / str(number)).write_bytes(content)
    with Packer(tmp_path / "backup.tar") as packer:
        for number, name in enumerate(FILES):
            packer.add(name, tmp_path / str(number))
        packer.add("artifacts/gone", tmp_path / "gone meanwhile")
        packer.close({"form": "sqlite"})
    return tmp_path / "backup.tar"


def test_what_goes_in_comes_out(packed: Path, tmp_path: Path) -> None:
    content = unpack(packed, tmp_path / "out")
    assert content["form"] == "sqlite"
    out = {
        str(p.relative_to(tmp_path / "out")): p.read_bytes()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    }
    assert out == FILES
    assert set(content["files"]) == set(FILES)


def test_cut_short_anywhere_it_is_refused(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    end = whole.rindex(b'"sha256"') + 70  # what follows the list is padding
    for number, length in enumerate([0, 1, 300, 512, 5000, 7000, 20_000, end - 600, end - 100]):
        packed.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"backup\.tar"):
            unpack(packed, tmp_path / f"out{number}")


def test_one_flipped_bit_anywhere_is_refused_and_named(packed: Path, tmp_path: Path) -> None:
    whole = bytearray(packed.read_bytes())
    places = {whole.index(b"trials" * 9) + 1000: "optuna.dump", whole.index(b"runs" * 9) + 5: "mlflow.dump"}
    places |= {whole.index(bytes(range(256))) + 999: "artifacts/1/a/model.bin"}
    places |= {whole.index(b'"bytes"') + 9: "manifest.json", whole.index(b'"sqlite"') + 3: "manifest.json"}
    places |= {whole.index(b"mlflow.dump") + 1: "optuna.dump"}  # a header: named is what came before
    for number, (place, name) in enumerate(places.items()):
        whole[place] ^= 4
        packed.write_bytes(whole)
        whole[place] ^= 4
        with pytest.raises(InputError, match=name):
            unpack(packed, tmp_path / f"out{number}")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../evil", tarfile.REGTYPE),
        ("artifacts/../../evil", tarfile.REGTYPE),
        ("/evil", tarfile.REGTYPE),
        ("artifacts//evil", tarfile.REGTYPE),
        ("server.json", tarfile.REGTYPE),
        ("postgres/PG_VERSION", tarfile.REGTYPE),
        ("optuna.dump", tarfile.REGTYPE),  # twice
        ("artifacts/link", tarfile.SYMTYPE),
        ("artifacts/link", tarfile.LNKTYPE),
        ("artifacts/pipe", tarfile.FIFOTYPE),
        ("artifacts/folder", tarfile.DIRTYPE),
    ],
)
def test_what_does_not_belong_there_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with Packer(tmp_path / "evil.tar") as packer:
        packer.add("optuna.dump", tmp_path / "a")
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        info.size = 4 if kind == tarfile.REGTYPE else 0
        packer._tar.addfile(info, io.BytesIO(b"evil"))
        packer.close({})
    with pytest.raises(InputError, match="does not belong into a backup"):
        unpack(tmp_path / "evil.tar", tmp_path / "into" / "out")
    assert not (tmp_path / "into" / "evil").exists()


def test_other_files_are_no_backup(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tar\n" * 1000)
    with pytest.raises(InputError, match="damaged or not a backup"):
        unpack(tmp_path / "text", tmp_path / "out")
