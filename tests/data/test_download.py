from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagenette.data import download
from imagenette.data.download import fetch
from imagenette.errors import InputError, RunError
from tests.data.servers import Server, serving

DATA = bytes(range(256)) * 4000
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({"set.tgz": DATA}) as server:
        yield server


def get(server: Server, folder: Path, name: str = "set.tgz", lines: list[str] | None = None) -> Path:
    log = [].append if lines is None else lines.append
    return fetch(f"{server.url}/{name}", MD5, folder, progress=False, log=log)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_file_arrives_whole_and_is_fetched_once(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path / "downloads")
    assert path.read_bytes() == DATA
    assert get(server, tmp_path / "downloads") == path
    assert server.asked == [None]
    assert files_in(path.parent) == ["set.tgz"]


def test_broken_connection_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut_after = len(DATA) // 3
    assert get(server, tmp_path).read_bytes() == DATA
    third = len(DATA) // 3
    assert server.asked == [None, f"bytes={third}-", f"bytes={2 * third}-", f"bytes={3 * third}-"]


def test_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.tgz.part").write_bytes(DATA[:1000])
    server.ranges = False
    assert get(server, tmp_path).read_bytes() == DATA


def test_partial_file_of_an_earlier_process_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.tgz.part").write_bytes(DATA[:1000])
    assert get(server, tmp_path).read_bytes() == DATA
    assert server.asked == ["bytes=1000-"]


def test_partial_file_that_is_whole_needs_only_its_name(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.tgz.part").write_bytes(DATA)
    assert get(server, tmp_path).read_bytes() == DATA
    assert server.asked == [f"bytes={len(DATA)}-"]


def test_partial_file_longer_than_the_whole_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.tgz.part").write_bytes(DATA + b"x")
    assert get(server, tmp_path).read_bytes() == DATA


def test_passing_failures_of_the_server_are_retried(server: Server, tmp_path: Path) -> None:
    server.failures = 2
    assert get(server, tmp_path).read_bytes() == DATA


def test_server_that_always_breaks_off_is_told_and_the_part_kept(server: Server, tmp_path: Path) -> None:
    server.cut_after = 1000
    with pytest.raises(
        RunError, match=r"broke off 6 times .*run again to go on, .*data=/path/to/set\.tgz"
    ) as caught:
        get(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "set.tgz.part").read_bytes() == DATA[:6000]


def test_wrong_bytes_are_removed_and_told(server: Server, tmp_path: Path) -> None:
    server.files["set.tgz"] = DATA[:-1] + b"?"
    with pytest.raises(InputError, match=f"other bytes than published: MD5 .*not {MD5}; removed") as caught:
        get(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert files_in(tmp_path) == []


def test_missing_file_is_told_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"absent\.tgz: HTTP 404"):
        get(server, tmp_path, "absent.tgz")
    assert len(server.asked) == 1


def test_damaged_download_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.tgz").write_bytes(b"damaged")
    lines: list[str] = []
    assert get(server, tmp_path, lines=lines).read_bytes() == DATA
    assert len(lines) == 1
    assert "downloading it again" in lines[0]


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=get, args=(server, tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [None]
    assert (tmp_path / "set.tgz").read_bytes() == DATA


@pytest.mark.parametrize("how", ["refused", "silent", "no such name"])
def test_offline_is_one_line_within_ten_seconds(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert download.SILENT_TRIES * download.ANSWER_SECONDS < 9
    monkeypatch.setattr(download, "ANSWER_SECONDS", 1.0)
    with socket.socket() as listener:  # takes the connection and never answers
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if how == "silent":
            listener.listen()
        host = "name.invalid" if how == "no such name" else f"127.0.0.1:{port}"
        start = time.monotonic()
        with pytest.raises(RunError, match=r"cannot reach http://.*data=/path/to/set\.tgz$") as caught:
            fetch(f"http://{host}/set.tgz", MD5, tmp_path, progress=False, log=print)
    assert time.monotonic() - start < 4
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("base", ["file:///etc", "ftp://host", "/a/path", "http//typo"])
def test_only_http_is_fetched(tmp_path: Path, base: str) -> None:
    with pytest.raises(InputError, match="only http:// and https://"):
        fetch(f"{base}/set.tgz", MD5, tmp_path, progress=False, log=print)


@pytest.mark.parametrize("base", ["http://host:port", "http://", "http://a b"])
def test_malformed_address_is_one_line(tmp_path: Path, base: str) -> None:
    with pytest.raises(RunError) as caught:
        fetch(f"{base}/set.tgz", MD5, tmp_path, progress=False, log=print)
    assert "\n" not in str(caught.value)


def test_folder_that_cannot_be_made_is_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        get(server, tmp_path / "file" / "downloads")
