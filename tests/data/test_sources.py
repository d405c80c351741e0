from __future__ import annotations

import ast
import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from imagenette.data import open_dataset, sources
from imagenette.errors import InputError, RunError
from tests.data.servers import Server, serving
from tests.data.small_sets import Files, pack, small_set

TEN = tuple(sources.IMAGENETTE)


@pytest.fixture
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Imagenette of 2 + 1 images a class."""
    counts = {wnid: (label, 2, 1) for wnid, (label, _, _) in sources.IMAGENETTE.items()}
    monkeypatch.setattr(sources, "IMAGENETTE", counts)


@pytest.fixture
def mirror(tmp_path: Path, small_counts: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves the small Imagenette as the published 160 px archive."""
    data = pack(small_set(TEN, train=2, val=1), tmp_path / "made.tgz", top="imagenette2-160/").read_bytes()
    published = sources.Published("imagenette2-160.tgz", hashlib.md5(data).hexdigest())
    monkeypatch.setitem(sources.PUBLISHED, "imagenette-160px", published)
    with serving({published.file: data}) as server:
        monkeypatch.setenv("IMAGENETTE_MIRROR", f"{server.url}/")
        yield server


@pytest.mark.parametrize(
    "source", ["", "imagnette", "/no/such/folder", "~/nothing.tgz", "~nobody-of-that-name/x"]
)
def test_unknown_source_is_told_with_what_is_allowed(source: str) -> None:
    with pytest.raises(InputError, match=f"^data={source}: .*digits, imagenette, imagenette-320px") as caught:
        open_dataset(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [0, -1, 4097])
def test_side_out_of_bounds_is_refused(side: int) -> None:
    with pytest.raises(InputError, match=f"side={side}: allowed are 1 to 4096"):
        open_dataset("digits", side=side)


def test_users_own_set_has_folder_names_for_labels(tmp_path: Path, files: Files) -> None:
    data = open_dataset(str(pack(files, tmp_path / "pets.v2.tar")))
    assert (data.name, data.source) == ("pets", str(tmp_path / "pets.v2.tar"))
    assert data.classes == data.labels == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.names == ("val/cat/0.JPEG", "val/cat/1.JPEG", "val/dog/0.JPEG", "val/dog/1.JPEG")


def test_published_facts_are_torchvisions() -> None:
    package = find_spec("torchvision")  # read, not imported: that takes ten seconds
    assert package
    assert package.submodule_search_locations
    code = (Path(package.submodule_search_locations[0]) / "datasets" / "imagenette.py").read_text()
    facts = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in {"_ARCHIVES", "_WNID_TO_CLASS"}
    }
    ours = {archive.file: archive.md5 for archive in sources.PUBLISHED.values()}
    theirs = facts["_ARCHIVES"].values()
    assert ours == {url.rpartition("/")[2]: md5 for url, md5 in theirs}
    assert {url.rpartition("/")[0] for url, _ in theirs} == {sources.MIRROR}
    labels = {wnid: names[0] for wnid, names in facts["_WNID_TO_CLASS"].items()}
    assert labels == {wnid: label for wnid, (label, _, _) in sources.IMAGENETTE.items()}
    assert sum(train for _, train, _ in sources.IMAGENETTE.values()) == 9469
    assert sum(test for _, _, test in sources.IMAGENETTE.values()) == 3925


def test_published_archive_is_fetched_and_then_opened_without_network_or_archive(
    mirror: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_dataset("imagenette-160px")
    assert (data.name, data.source) == ("imagenette-160px", f"{mirror.url}/imagenette2-160.tgz")
    assert data.classes == TEN
    assert data.labels[0] == "tench"
    (home / "downloads" / "imagenette2-160.tgz").unlink()
    monkeypatch.setenv("IMAGENETTE_MIRROR", "http://127.0.0.1:9")
    assert open_dataset("imagenette-160px").digest == data.digest
    (entry,) = (home / "index").glob("md5-*-1.json")
    known = json.loads(entry.read_text())  # versions before wrote only these two:
    entry.write_text(json.dumps({name: known[name] for name in ("digest", "native")}))
    assert open_dataset("imagenette-160px").digest == data.digest
    assert len(mirror.asked) == 1


def test_published_archive_and_its_unpacked_folder_share_digest(mirror: Server, tmp_path: Path) -> None:
    files = small_set(TEN, train=2, val=1)
    assert open_dataset("imagenette-160px").digest == open_dataset(pack(files, tmp_path / "own")).digest


def test_published_archive_with_other_counts_is_refused(
    mirror: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {wnid: (label, 3, 1) for wnid, (label, _, _) in sources.IMAGENETTE.items()}
    monkeypatch.setattr(sources, "IMAGENETTE", counts)
    message = (
        r"data=imagenette-160px: class n01440764 \(tench\) has 2 training and 1 test images; published are 3"
    )
    with pytest.raises(InputError, match=message):
        open_dataset("imagenette-160px")
    assert not (home / "cache").exists()


def test_offline_names_the_way_round() -> None:
    with pytest.raises(RunError, match=r"cannot reach .*data=/path/to/imagenette2-320\.tgz"):
        open_dataset("imagenette-320px")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (TEN[:3] + TEN[4:], r"class n03000684 \(chain saw\) is missing; Imagenette has ten"),
        (TEN[:8], r"classes n03445777 \(golf ball\), n03888257 \(parachute\) are missing"),
        ((*TEN[:9], "n99999999"), r"class n03888257 \(parachute\) is missing"),
    ],
)
def test_imagenette_with_a_class_missing_is_refused(
    tmp_path: Path, home: Path, classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(pack(small_set(classes, train=1, val=1), tmp_path / "set.tar"))
    assert "\n" not in str(caught.value)
    assert not home.exists()


@pytest.mark.parametrize(
    ("classes", "train", "message"),
    [
        (TEN, 2, None),
        (TEN, 1, r"class n01440764 \(tench\) has 1 training and 1 test images; published are 2 and 1"),
        ((*TEN, "n99999999"), 2, "1 classes beside Imagenette's ten, such as n99999999"),
    ],
)
def test_imagenette_that_differs_is_opened_and_told_each_time(
    tmp_path: Path, small_counts: None, classes: tuple[str, ...], train: int, message: str | None
) -> None:
    path = pack(small_set(classes, train=train, val=1), tmp_path / "set.tar")
    for _ in range(2):
        lines: list[str] = []
        assert open_dataset(path, log=lines.append).classes == classes
        assert len(lines) == (message is not None)
        if message:
            assert re.search(message, lines[0])
            assert lines[0].startswith(f"data={path}: ")


def test_bars_are_drawn_on_a_terminal_only(tmp_path: Path, files: Files) -> None:
    pack(files, tmp_path / "set.tar")
    code = f"from imagenette.data import open_dataset; open_dataset({str(tmp_path / 'set.tar')!r}, home=HOME)"
    root = Path(__file__).parents[2]

    def stderr_of(command: str, terminal: bool) -> bytes:
        reader, writer = pty.openpty() if terminal else os.pipe()
        if terminal:
            termios.tcsetwinsize(writer, (24, 100))
        subprocess.run([sys.executable, "-c", command], cwd=root, stderr=writer, check=True)
        os.write(writer, b".")
        seen = os.read(reader, 100_000)
        os.close(reader)
        os.close(writer)
        return seen

    homes = [code.replace("HOME", repr(str(tmp_path / name))) for name in ("one", "two", "three")]
    assert b"decoding set.tar" in stderr_of(homes[0], terminal=True)
    assert stderr_of(homes[1], terminal=False) == b"."
    assert stderr_of(homes[2].replace(")", ", progress=False)"), terminal=True) == b"."
