"""What cannot be served is one line with exit code 2, before anything is made."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagenette.cli import main
from imagenette.server import postgres
from imagenette.server.folder import Folder
from tests.server.served import COMMAND, clean_environment, free_ports

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def here(place: Path, request: pytest.FixtureRequest) -> Path:
    """An empty folder of the test's own."""
    folder = place / f"{request.node.originalname}{len(list(place.iterdir()))}"
    folder.mkdir(mode=0o711)
    return folder


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path
) -> Iterator[Command]:
    """command(*words) -> (exit code, standard error) of `imagenette server WORDS`, in this process."""
    mask, handler = os.umask(0o022), signal.getsignal(signal.SIGTERM)
    ports = free_ports(2)
    monkeypatch.chdir(here)

    def run(*words: object) -> tuple[int, str]:
        said = [str(word) for word in words]
        if not {"env", "backup", "restore"} & set(said):
            for option, port in zip(("--port", "--dashboard-port"), ports, strict=True):
                said += [] if option in said else [option, str(port)]
        monkeypatch.setattr(sys, "argv", ["imagenette", "server", *said])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    yield run
    os.umask(mask)
    signal.signal(signal.SIGTERM, handler)


def made(path: Path, form: str = "postgresql", **mark: object) -> Path:
    path.mkdir()
    (path / "server.json").write_text(json.dumps({"format": 1, "form": form} | mark))
    return path


@pytest.mark.parametrize("option", ["--port", "--dashboard-port"])
@pytest.mark.parametrize("form", [[], ["--sqlite"]])
def test_a_taken_port(command: Command, here: Path, option: str, form: list[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, said = command("--dir", "new", option, port, *form)
    assert (code, said) == (
        2,
        f"imagenette: cannot listen on 127.0.0.1:{port}: address already in use; "
        f"choose another with {option}\n",
    )
    assert list(here.iterdir()) == []


def test_a_folder_of_something_else(command: Command, here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine/thesis.tex").write_text("years of work")
    for form in ([], ["--sqlite"]):
        code, said = command("--dir", "mine", *form)
        assert (code, len(said.splitlines())) == (2, 1)
        assert "holds something else (thesis.tex)" in said
    assert [p.name for p in (here / "mine").iterdir()] == ["thesis.tex"]


def test_the_other_form(command: Command, here: Path) -> None:
    assert "was made without --sqlite" in command("--dir", made(here / "a"), "--sqlite")[1]
    assert "was made with --sqlite" in command("--dir", made(here / "b", "sqlite"))[1]
    assert command("--dir", here / "a", "--sqlite", "true")[0] == 2
    assert "format 2" in command("--dir", made(here / "c", format=2))[1]
    for name in "abc":
        assert [p.name for p in (here / name).iterdir()] == ["server.json"]


def test_another_postgresql(command: Command, here: Path) -> None:
    (made(here / "old") / "postgres").mkdir()
    (here / "old/postgres/PG_VERSION").write_text("9\n")
    code, said = command("--dir", "old")
    assert (code, len(said.splitlines())) == (2, 1)
    assert "made by PostgreSQL 9, and here are 16 and 18" in said


def test_what_is_not_installed(command: Command, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if "pgserver" in name else find(name, *more)
    )
    code, said = command("--dir", "new")
    assert code == 2
    assert said.endswith(
        "PostgreSQL is not installed here: pip install '.[server]' in a clone of the project, "
        "or use --sqlite\n"
    )
    assert list(here.iterdir()) == []


def test_names_that_no_address_can_hold(command: Command, here: Path) -> None:
    for name in ("what?", "100%", "a,b", "two\nlines"):
        code, said = command("--dir", name)
        assert (code, len(said.splitlines())) == (2, 1)
        assert "cannot be part of a database's address" in said
    assert list(here.iterdir()) == []


def test_a_folder_that_is_a_file_or_is_not_ours(
    command: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "file").write_text("")
    assert "not a directory" in command("--dir", "file")[1]
    assert command("--dir", "file/below", "--sqlite")[0] == 2
    (here / "theirs").mkdir()
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 12345)
    code, said = command("--dir", "theirs", "--sqlite")
    assert code == 2
    assert "belongs to" in said
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, said = command("--dir", "new", "--sqlite")
    assert (code, len(said.splitlines())) == (2, 1)
    assert f"{here} is not writable" in said


@pytest.mark.parametrize(("form", "limit"), [([], 2**20), (["--sqlite"], 64)])
def test_a_disk_that_fills_up_at_the_beginning(
    command: Command, here: Path, form: list[str], limit: int
) -> None:
    """As good as full: no file may be longer than that."""
    ports = free_ports(2)
    words = ["--dir", here / "new", "--port", ports[0], "--dashboard-port", ports[1], *form]
    done = subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2, done.stderr
    assert f"--dir {here / 'new'} cannot be made: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(here.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL is another user")
def test_root_is_told_what_postgresql_cannot_pass_through(command: Command, here: Path) -> None:
    (here / "closed").mkdir(mode=0o700)
    code, said = command("--dir", "closed/new")
    assert code == 2
    assert f"cannot pass through {here}/closed to {here}/closed/new: `chmod o+x {here}/closed`" in said
    assert list((here / "closed").iterdir()) == []


def test_backup_restore_and_env_of_nothing(command: Command, here: Path) -> None:
    (here / "full").mkdir()
    (here / "full/something").write_text("")
    (here / "not-a-backup").write_text("text " * 300)
    sayings = {
        ("env", "--dir", "none"): "no imagenette server was started there yet",
        ("backup", "b.tar", "--dir", "none"): "there is no imagenette server to back up",
        ("restore", "b.tar", "--dir", "new"): "there is no such file",
        ("restore", "not-a-backup", "--dir", "full"): "is not empty",
        ("restore", "not-a-backup", "--dir", "new"): "damaged or not a backup",
        ("backup", made(here / "s", "sqlite") / "b.tar", "--dir", "s"): "not in the server's folder",
        ("--dir", "none", "env"): "no imagenette server was started there yet",
    }
    before = sorted(here.rglob("*"))
    for words, complaint in sayings.items():
        code, said = command(*words)
        assert (code, len(said.splitlines())) == (2, 1), said
        assert complaint in said
    assert sorted(here.rglob("*")) == before


def test_a_path_too_long_for_a_socket_has_one_elsewhere_that_is_private(here: Path) -> None:
    short, long = Folder(Path("/srv/a")), Folder(here / ("b" * 120))
    assert postgres.socket_folder(short).parent == short.path
    elsewhere = postgres.socket_folder(long)
    assert len(os.fsencode(elsewhere / ".s.PGSQL.5432")) <= 107
    assert postgres.socket_folder(Folder(here / ("b" * 121))) != elsewhere
