from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from imagenette.data import cache, open_dataset
from imagenette.data import sources as sources_module
from imagenette.data.images import decode
from imagenette.data.scan import digest_of
from imagenette.errors import InputError, RunError
from tests.data.small_sets import Files, encode, left_behind, pack, picture, small_set, turned

CONTAINERS = ["set", "set.tar", "set.tgz", "set.tar.bz2", "set.tar.xz", "set.zip"]


def cache_folder(home: Path) -> Path:
    (folder,) = [path for path in (home / "cache").iterdir() if path.is_dir()]
    return folder


def forbid_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a warm start read the source")

    monkeypatch.setattr(sources_module, "scan", refuse)


def test_stored_pixels_are_the_decoded_and_squashed_files(tmp_path: Path, files: Files) -> None:
    data = open_dataset(pack(files, tmp_path / "set.tar"), side=16)
    for split in (data.train, data.test):
        assert isinstance(split.images, np.memmap)
        assert split.images.flags.writeable
        assert split.images.shape == (len(split), 16, 16, 3)
        assert split.sizes.tolist() == [[16, 24]] * len(split)
        for name, label, image in zip(split.names, split.labels, split.images, strict=True):
            assert np.array_equal(image, decode(files[name], name, 16))
            assert data.classes[label] == name.split("/")[1]


def test_images_of_the_stored_side_are_stored_as_decoded(tmp_path: Path) -> None:
    files = small_set(size=(32, 32))
    data = open_dataset(pack(files, tmp_path / "set.tar"), side=256)
    assert data.side == 32  # never enlarged
    for name, image in zip(data.train.names, data.train.images, strict=True):
        assert np.array_equal(image, decode(files[name], name))


def test_side_is_capped_by_the_longest_side_in_the_set(tmp_path: Path, files: Files) -> None:
    files["train/cat/wide.png"] = encode(picture(9, (40, 10)), "PNG")
    assert open_dataset(pack(files, tmp_path / "set")).side == 40


def test_same_images_have_one_digest_and_one_cache_however_packed(
    tmp_path: Path, files: Files, home: Path
) -> None:
    digests = {open_dataset(pack(files, tmp_path / name, top="top/")).digest for name in CONTAINERS}
    digests.add(open_dataset(pack(dict(reversed(files.items())), tmp_path / "turned.tar")).digest)
    assert len(digests) == 1
    assert cache_folder(home).name == f"{digests.pop()[:16]}-24"


@pytest.mark.parametrize("change", ["bytes", "name", "split"])
def test_digest_follows_the_content(tmp_path: Path, files: Files, change: str) -> None:
    before = open_dataset(pack(files, tmp_path / "a.tar")).digest
    data = files.pop("train/cat/0.JPEG")
    files |= {
        "bytes": {"train/cat/0.JPEG": data + b"\0"},
        "name": {"train/cat/new.JPEG": data},
        "split": {"val/cat/0b.JPEG": data},
    }[change]
    assert open_dataset(pack(files, tmp_path / "b.tar")).digest != before


@pytest.mark.parametrize("name", CONTAINERS)
def test_warm_start_does_not_read_the_source(
    tmp_path: Path, files: Files, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(files, tmp_path / name)
    cold = open_dataset(path)
    forbid_scan(monkeypatch)
    warm = open_dataset(path)
    assert (warm.name, warm.source, warm.digest, warm.classes) == (
        "set",
        str(path),
        cold.digest,
        cold.classes,
    )
    assert np.array_equal(warm.train.images, cold.train.images)
    assert warm.test.names == cold.test.names


def test_turned_pictures_are_stored_upright_with_a_digest_of_their_own(tmp_path: Path, files: Files) -> None:
    """The digest of before stands for pixels as they were: on their side."""
    image = picture(9)
    upright = pack(files | {"train/cat/phone.png": encode(image, "PNG")}, tmp_path / "upright.tar")
    files["train/cat/phone.png"] = turned(image)
    one, other = open_dataset(upright), open_dataset(pack(files, tmp_path / "turned.tar"))
    assert np.array_equal(one.train.images, other.train.images)
    assert np.array_equal(one.train.sizes, other.train.sizes)
    assert other.digest != digest_before(files)


def digest_before(files: Files) -> str:
    return digest_of((name, hashlib.sha256(data).hexdigest()) for name, data in files.items())


def test_cache_of_before_is_used_where_no_picture_is_turned(tmp_path: Path, files: Files, home: Path) -> None:
    path = pack(files, tmp_path / "set.tar")
    before = open_dataset(path)
    made = (cache_folder(home) / "train-images.npy").stat()
    (index,) = (home / "index").iterdir()
    old = json.dumps({"digest": before.digest, "native": 24})
    index.with_name(index.name.replace("-2.json", "-1.json")).write_text(old)
    index.unlink()
    lines: list[str] = []
    assert open_dataset(path, log=lines.append).digest == before.digest == digest_before(files)
    after = (cache_folder(home) / "train-images.npy").stat()
    assert (after.st_ino, after.st_mtime_ns, lines) == (made.st_ino, made.st_mtime_ns, [])


def test_changed_source_is_read_again(tmp_path: Path, files: Files) -> None:
    path = pack(files, tmp_path / "set")
    before = open_dataset(path)
    (path / "train/cat/more.png").write_bytes(encode(picture(1), "PNG"))
    after = open_dataset(path)
    assert len(after.train) == len(before.train) + 1


def test_writing_to_the_images_does_not_reach_the_cache(tmp_path: Path, files: Files) -> None:
    path = pack(files, tmp_path / "set.tar")
    data = open_dataset(path)
    kept = data.train.images[0].copy()
    data.train.images[0] = 7
    assert np.array_equal(open_dataset(path).train.images[0], kept)


def _cut(folder: Path) -> None:
    os.truncate(folder / "train-images.npy", 1000)


def _grow(folder: Path) -> None:
    with (folder / "test-labels.npy").open("ab") as file:
        file.write(b"x")


def _garble(folder: Path) -> None:
    (folder / "meta.json").write_text("{")


def _empty(folder: Path) -> None:
    (folder / "meta.json").write_bytes(b"\0" * 100)


def _other(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"digest": "0" * 64}))


def _lose(folder: Path) -> None:
    (folder / "test-images.npy").unlink()


def _null(folder: Path) -> None:
    (folder / "meta.json").write_text("null")


@pytest.mark.parametrize("damage", [_cut, _grow, _garble, _empty, _other, _lose, _null])
def test_damaged_cache_is_told_once_and_made_again(
    tmp_path: Path, files: Files, home: Path, damage: object
) -> None:
    path = pack(files, tmp_path / "set.tar")
    kept = np.array(open_dataset(path).train.images)
    damage(cache_folder(home))  # type: ignore[operator]
    lines: list[str] = []
    assert np.array_equal(open_dataset(path, log=lines.append).train.images, kept)
    assert len(lines) == 1
    assert "damaged" in lines[0]
    assert "\n" not in lines[0]
    assert left_behind(home) == []


@pytest.mark.parametrize(
    "text", ["", "{", "null", '{"digest": 5, "native": "x"}', '{"digest": "../..", "native": 1}']
)
def test_damaged_index_only_costs_a_reading(tmp_path: Path, files: Files, home: Path, text: str) -> None:
    path = pack(files, tmp_path / "set.tar")
    before = open_dataset(path)
    for file in (home / "index").iterdir():
        file.write_text(text)
    lines: list[str] = []
    assert open_dataset(path, log=lines.append).digest == before.digest
    assert lines == []


def test_what_a_killed_maker_left_is_swept_up(tmp_path: Path, files: Files, home: Path) -> None:
    path = pack(files, tmp_path / "set.tar")
    open_dataset(path)
    folder = cache_folder(home)
    folder.rename(folder.with_name(f".{folder.name}.dead.new"))
    open_dataset(path)
    assert left_behind(home) == []


def test_deleted_cache_is_made_again(tmp_path: Path, files: Files, home: Path) -> None:
    path = pack(files, tmp_path / "set.tar")
    open_dataset(path)
    shutil.rmtree(home / "cache")
    assert len(open_dataset(path).train) == 6


OPEN = """
import sys
from imagenette.data import open_dataset
sys.stdin.read()
data = open_dataset(sys.argv[1], home=sys.argv[2], log=lambda line: print("LOG", line))
print(data.digest, len(data.train), int(data.train.images.sum()))
"""


def opener(path: Path, home: Path, code: str = OPEN) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(home)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_make_one_cache_at_once_agree(tmp_path: Path, home: Path) -> None:
    path = pack(small_set(train=60, val=20, size=(200, 150)), tmp_path / "set.tar")
    both = [opener(path, home) for _ in range(2)]
    for process in both:
        assert process.stdin
        process.stdin.close()
        process.stdin = None
    outs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    results = {out.splitlines()[-1] for out, _ in outs}
    assert len(results) == 1
    assert [path.name for path in (home / "cache").iterdir() if path.is_dir()] == [cache_folder(home).name]
    assert left_behind(home) == []


def test_one_process_makes_and_the_other_opens(tmp_path: Path, files: Files, home: Path) -> None:
    """The same where locks do not work: the rename alone decides, and the loser opens the winner's."""
    scanned = sources_module.scan(pack(files, tmp_path / "set.tar"))
    folder = home / "cache" / f"{scanned.digest[:16]}-16"
    folder.parent.mkdir(parents=True)
    first = cache.store(home, scanned, 16, progress=False, log=print)
    hidden = folder.rename(tmp_path / "winner")
    original = cache.decode_into

    def lose(*args: object, **kwargs: object) -> None:
        original(*args, **kwargs)  # type: ignore[arg-type]
        hidden.rename(folder)  # the winner's folder arrives while ours is being made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "decode_into", lose)
        second = cache.store(home, scanned, 16, progress=False, log=print)
    assert np.array_equal(first.train.images, second.train.images)
    assert left_behind(home) == []


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, home: Path) -> None:
    path = pack(small_set(train=20, size=(100, 100)), tmp_path / "set.tar")
    # A limit on the size of files fails the write as a full disk does, with another number.
    code = OPEN.replace(
        "sys.stdin.read()",
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))",
    )
    out, err = opener(path, home, code).communicate(timeout=60)
    last = err.strip().splitlines()[-1]
    assert last.startswith(f"imagenette.errors.RunError: cannot write the cache {home}"), (out, err)
    assert left_behind(home) == []
    assert not [path for path in (home / "cache").iterdir() if path.is_dir()]


def test_too_small_a_disk_is_told_before_decoding(
    tmp_path: Path, files: Files, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(RunError, match=r"needs .* GB, and its disk has 0\.0 GB free"):
        open_dataset(pack(files, tmp_path / "set.tar"))
    assert left_behind(home) == []


def test_home_that_is_a_file_is_one_line(tmp_path: Path, files: Files, home: Path) -> None:
    home.write_text("in the way")
    with pytest.raises(RunError, match="cannot write the cache") as caught:
        open_dataset(pack(files, tmp_path / "set.tar"))
    assert "\n" not in str(caught.value)


def test_index_that_cannot_be_written_only_costs_time(tmp_path: Path, files: Files, home: Path) -> None:
    home.mkdir()
    (home / "index").write_text("in the way")
    lines: list[str] = []
    assert len(open_dataset(pack(files, tmp_path / "set.tar"), log=lines.append).train) == 6
    assert len(lines) == 1
    assert "reads all images again" in lines[0]


@pytest.mark.parametrize("name", ["set", "set.tar", "set.tgz", "set.zip"])
def test_truncated_image_is_found_at_decoding_and_leaves_nothing(
    tmp_path: Path, files: Files, home: Path, name: str
) -> None:
    files["val/dog/0.JPEG"] = encode(picture(1, (200, 200)))[:-400]
    with pytest.raises(InputError, match=rf"data=.*{name}: val/dog/0\.JPEG: the image is damaged") as caught:
        open_dataset(pack(files, tmp_path / name))
    assert "\n" not in str(caught.value)
    assert left_behind(home) == []
    assert not [path for path in (home / "cache").iterdir() if path.is_dir()]


@pytest.mark.parametrize("bad", [b"", b"text", b"\xff\xd8\xff\xe0 cut"])
def test_bad_header_is_told_and_leaves_nothing(tmp_path: Path, files: Files, home: Path, bad: bytes) -> None:
    files["val/dog/9.JPEG"] = bad
    with pytest.raises(InputError, match=r"val/dog/9\.JPEG: "):
        open_dataset(pack(files, tmp_path / "set.tar"))
    assert not home.exists()


def with_bad(files: Files, count: int = 2) -> Files:
    """So many in each class: of one the header is bad, of the other the pixels."""
    cut = encode(picture(1, (200, 200)))[:-400]
    bad = {f"train/cat/bad{i:02}.JPEG": b"<html>404</html>" for i in range(count)}
    return files | bad | {f"val/dog/bad{i:02}.JPEG": cut for i in range(count)}


@pytest.mark.parametrize("name", ["set", "set.tgz", "set.zip"])
def test_all_bad_pictures_are_named_at_once_headers_and_pixels(
    tmp_path: Path, files: Files, home: Path, name: str
) -> None:
    with pytest.raises(InputError) as caught:
        open_dataset(pack(with_bad(files), tmp_path / name))
    said = str(caught.value)
    assert said.startswith(f"data={tmp_path / name}: 4 pictures cannot be read: ")
    for bad in ("train/cat/bad00", "train/cat/bad01"):
        assert f"{bad}.JPEG: the content is not an image" in said
    for bad in ("val/dog/bad00", "val/dog/bad01"):
        assert f"{bad}.JPEG: the image is damaged" in said
    assert "\n" not in said
    assert not home.exists()


def test_of_many_bad_pictures_twenty_are_named_and_the_others_counted(tmp_path: Path, files: Files) -> None:
    with pytest.raises(InputError, match=r": 30 pictures cannot be read: .*; and 10 more; ") as caught:
        open_dataset(pack(with_bad(files, 15), tmp_path / "set"))
    assert str(caught.value).count(".JPEG: the ") == 20


@pytest.mark.parametrize("kinds", ["header", "pixels", "both"])
def test_bad_pictures_are_skipped_where_asked_and_the_set_is_the_one_without_them(
    tmp_path: Path, files: Files, kinds: str
) -> None:
    bad = {
        k: v for k, v in with_bad(files).items() if k[:3] in {"header": "tra", "pixels": "val"}.get(kinds, k)
    }
    path = pack(files | bad, tmp_path / "set.tar")
    without = open_dataset(pack(files, tmp_path / "whole.tar"))
    for _ in range(2):  # cold and warm
        lines: list[str] = []
        data = open_dataset(path, bad_pictures="skip", log=lines.append)
        assert (data.digest, data.train.names) == (without.digest, without.train.names)
        assert np.array_equal(data.test.images, without.test.images)
        (line,) = lines
        assert all(name in line for name in bad.keys() - files.keys())
        assert line.endswith("left out")
    with pytest.raises(InputError, match="cannot be read"):
        open_dataset(path)


def test_a_whole_set_is_the_same_whatever_happens_to_bad_pictures(tmp_path: Path, files: Files) -> None:
    path, lines = pack(files, tmp_path / "set.tar"), list[str]()
    digests = {open_dataset(path, bad_pictures=each, log=lines.append).digest for each in ("skip", "refuse")}
    assert (len(digests), lines) == (1, [])


@pytest.mark.parametrize("bad", [b"", encode(picture(1, (200, 200)))[:-400]])
def test_a_class_with_bad_pictures_alone_is_not_skipped(tmp_path: Path, files: Files, bad: bytes) -> None:
    files |= dict.fromkeys([name for name in files if name.startswith("val/dog")], bad)
    with pytest.raises(InputError, match="no test picture of class dog can be read"):
        open_dataset(pack(files, tmp_path / "set.tar"), bad_pictures="skip")


def test_source_that_changes_between_the_passes_is_refused(tmp_path: Path, files: Files, home: Path) -> None:
    path = pack(files, tmp_path / "set")
    scanned = sources_module.scan(path)
    (path / "val/dog/0.JPEG").write_bytes(files["val/dog/1.JPEG"])
    with pytest.raises(InputError, match=r"val/dog/0\.JPEG changed while it was read"):
        cache.store(home, scanned, 16, progress=False, log=print)
    (path / "val/dog/0.JPEG").unlink()
    with pytest.raises(InputError, match="1 images are gone"):
        cache.store(home, scanned, 16, progress=False, log=print)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that every user may write to, in a folder that every user may enter."""
    before = os.umask(0)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        monkeypatch.setenv("IMAGENETTE_HOME", f"{folder}/home")
        yield Path(folder) / "home"
    os.umask(before)


@contextmanager
def as_stranger() -> Iterator[None]:
    """Without root's rights; with their own, a mode without `w` closes a file to its owner too."""
    if root := os.geteuid() == 0:
        os.seteuid(12345)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_lock_that_another_user_left_stops_nobody(shared: Path, files: Files, mode: int) -> None:
    path = pack(files, shared.parent / "set.tar")
    open_dataset(path)
    shutil.rmtree(cache_folder(shared))
    (lock,) = (shared / "cache").glob(".*.lock")
    lock.chmod(mode)
    with as_stranger():
        assert len(open_dataset(path).train) == 6


def test_whoever_may_only_read_waits_for_the_maker_and_uses_what_it_made(shared: Path, files: Files) -> None:
    path = pack(files, shared.parent / "set.tar")
    open_dataset(path)
    made = cache_folder(shared)
    aside = made.rename(shared / "aside")
    (lock,) = made.parent.glob(".*.lock")
    lock.chmod(0o444)
    made.parent.chmod(0o755)
    lines: list[str] = []

    def finish(line: str) -> None:
        lines.append(line)
        if root := os.geteuid() == 12345:
            os.seteuid(0)
        aside.rename(made)
        if root:
            os.seteuid(12345)
        maker.close()

    with lock.open() as maker:
        fcntl.flock(maker, fcntl.LOCK_EX)
        with as_stranger():
            assert len(open_dataset(path, log=finish).train) == 6
    assert lines == [f"waiting for another process which makes {made.name}"]


def test_home_that_may_only_be_read_is_used_where_it_is_whole_and_else_told(
    shared: Path, files: Files
) -> None:
    path = pack(files, shared.parent / "set.tar")
    before = open_dataset(path)
    folders = [shared / "cache", shared / "index", shared]
    for folder in folders:
        folder.chmod(0o555)
    lines: list[str] = []
    with as_stranger():
        assert open_dataset(path, log=lines.append).digest == before.digest
        with pytest.raises(
            RunError, match=r"^cannot write the cache \S+: Permission denied; IMAGENETTE_HOME="
        ):
            open_dataset(path, side=8, log=lines.append)
    for folder in folders:
        folder.chmod(0o777)
    assert lines == []


def test_cache_that_may_not_be_read_is_told_as_that(shared: Path, files: Files) -> None:
    path = pack(files, shared.parent / "set.tar")
    open_dataset(path)
    cache_folder(shared).chmod(0o000)
    lines: list[str] = []
    with as_stranger(), pytest.raises(RunError, match=r"^cannot read the cache .* IMAGENETTE_HOME="):
        open_dataset(path, log=lines.append)
    cache_folder(shared).chmod(0o777)
    assert lines == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_user_with_neither_home_nor_name_is_told_in_one_line_where_a_home_is_needed() -> None:
    code = (
        "import os; from imagenette.data import cache, sources; os.setuid(12345); "
        "print(sources.expanded('~/x'), cache.home_folder('/one')); cache.home_folder()"
    )
    env = {name: text for name, text in os.environ.items() if not name.endswith("_HOME") and name != "HOME"}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True)
    assert done.stdout == "~/x /one\n"
    last = done.stderr.splitlines()[-1]
    assert re.search("InputError: ~/.cache/imagenette: there is no such home.*IMAGENETTE_HOME=", last)


def test_home_comes_from_argument_then_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGENETTE_HOME", "/one")
    assert cache.home_folder(tmp_path) == tmp_path
    assert cache.home_folder() == Path("/one")
    monkeypatch.setenv("IMAGENETTE_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache.home_folder() == Path("/two/imagenette")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/three")
    assert cache.home_folder() == Path("/three/.cache/imagenette")
