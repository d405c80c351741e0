"""Parts in care: restarted, given up, ended to the last child."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from imagenette.errors import InputError, RunError
from imagenette.server import _await_ports
from imagenette.server import supervisor as supervisor_module
from imagenette.server.folder import Folder
from imagenette.server.leftovers import MARK, end_leftovers, still_there
from imagenette.server.parts import Part
from imagenette.server.supervisor import Supervisor
from tests.waiting import wait_until

SLEEPS = "import time; open('up', 'w').close(); time.sleep(60)"
# With a child that ignores what asks it to stop.
FAMILY = (
    "import subprocess, sys, time\n"
    "code = 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)'\n"
    "child = subprocess.Popen([sys.executable, '-c', code])\n"
    "open('child', 'w').write(str(child.pid)); open('up', 'w').close(); time.sleep(60)"
)
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); open('up', 'w').close(); time.sleep(60)"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "PAUSE", 0.05)


def part(folder: Path, code: str, name: str = "sleeper") -> Part:
    folder.mkdir(exist_ok=True)
    return Part(
        name=name,
        command=[sys.executable, "-c", code],
        log=folder / "log",
        answers=(folder / "up").exists,
        env=dict(os.environ),
        cwd=folder,
        grace=20.0,
    )


def later(*actions: object) -> threading.Thread:
    """The actions one after the other, in a thread; then we are asked to stop."""

    def act() -> None:
        try:
            for action in actions:
                action()  # type: ignore[operator]
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_part_that_is_killed_is_said_and_started_again_without_its_old_children(tmp_path: Path) -> None:
    said: list[str] = []
    child = tmp_path / "child"

    def kill() -> None:
        old = int(child.read_text())
        child.unlink()
        (tmp_path / "up").unlink()
        os.kill(family.pid, signal.SIGKILL)
        wait_until(lambda: "sleeper answers again" in said, 20)
        wait_until(lambda: is_over(old), 10)
        killed.append(old)

    killed: list[int] = []
    with Supervisor(said.append) as supervisor:
        family = part(tmp_path, FAMILY)
        supervisor.add(family)
        supervisor.until_up()
        thread = later(kill)
        supervisor.forever()
    thread.join()
    assert killed, said
    assert said == [
        "sleeper died (killed by SIGKILL): started again in 0 s",
        "sleeper answers again",
        "stopping",
    ]
    wait_until(lambda: is_over(int(child.read_text())), 10)  # though it ignores SIGTERM


def test_who_dies_again_and_again_is_given_up_after_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "PAUSE", 0.2)
    said: list[str] = []
    code = "import sys; open('up', 'w').close(); print('no disk'); sys.exit(3)"
    dying = part(tmp_path, "import time; open('up', 'w').close(); time.sleep(0.5)")
    with pytest.raises(RunError) as end, Supervisor(said.append) as supervisor:  # noqa: PT012
        supervisor.add(dying)
        supervisor.until_up()
        dying.command = [sys.executable, "-c", code]
        began = time.monotonic()
        supervisor.forever()
    took = time.monotonic() - began
    log = tmp_path / "log"
    assert str(end.value) == f"sleeper died 5 times in a row (ended with code 3); the end of {log}: no disk"
    assert sum("died" in line for line in said) == 4
    assert took > 0.2 * (1 + 2 + 4 + 8)


def test_who_never_answered_is_not_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(RunError) as end, Supervisor(said.append) as supervisor:  # noqa: PT012
        supervisor.add(part(tmp_path, "1 / 0"))
        supervisor.until_up()
    assert said == []
    assert "sleeper died before it ever answered (ended with code 1)" in str(end.value)
    assert str(end.value).endswith("ZeroDivisionError: division by zero")


def test_who_dies_before_it_answered_with_the_one_it_stands_on_is_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    ground = part(tmp_path / "ground", SLEEPS, "ground")
    upon = part(tmp_path / "upon", "import os, time; os.kill(int(open('ground').read()), 9); 1 / 0", "upon")
    with Supervisor(said.append) as supervisor:
        supervisor.add(ground)
        supervisor.until_up()
        (tmp_path / "upon/ground").write_text(str(ground.pid))
        supervisor.add(upon)
        upon.command = [sys.executable, "-c", SLEEPS]
        (tmp_path / "ground/up").unlink()
        supervisor.until_up()
    assert sorted(said) == [
        "ground answers again",
        "ground died (killed by SIGKILL): started again in 0 s",
        "upon died (ended with code 1): started again in 0 s",
    ]


def test_what_fails_because_a_part_fell_is_done_again_and_nothing_else_is(tmp_path: Path) -> None:
    done: list[str] = []

    def cut_short() -> None:
        done.append(str(ground.pid))
        if len(done) == 1:
            (tmp_path / "up").unlink()
            os.kill(ground.pid, signal.SIGKILL)
            raise RunError("connection lost")

    def no_space() -> None:
        done.append("no space")
        raise RunError("no space")

    with pytest.raises(RunError, match="no space"), Supervisor(lambda line: None) as supervisor:  # noqa: PT012
        ground = part(tmp_path, SLEEPS)
        supervisor.add(ground)
        supervisor.until_up()
        supervisor.do(cut_short)
        supervisor.do(no_space)
    first, second, *rest = done
    assert first != second
    assert rest == ["no space"]


def test_parts_stop_in_reverse_order_and_asked_twice_at_once(tmp_path: Path) -> None:
    stopped: list[str] = []

    class Noted(Part):
        def stop(self, *args: object, **kwargs: object) -> None:
            super().stop(*args, **kwargs)  # type: ignore[arg-type]
            stopped.append(self.name)

    parts = [part(tmp_path / name, code, name) for name, code in (("a", DEAF), ("b", SLEEPS), ("c", SLEEPS))]
    began = 0.0
    with Supervisor(lambda line: None) as supervisor:
        for one in parts:
            one.__class__ = Noted
            supervisor.add(one)
        supervisor.until_up()
        thread = later(lambda: None)
        began = time.monotonic()
        again = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
        again.start()
        supervisor.forever()
    thread.join()
    assert stopped == ["c", "b", "a"]
    assert 0.9 < time.monotonic() - began < 15, "a has twenty seconds, unless we are asked twice"


def test_a_part_follows_a_watcher_that_is_killed(tmp_path: Path) -> None:
    """kill -9 leaves no time to stop anything."""
    pid = os.fork()
    if pid == 0:
        part(tmp_path, SLEEPS).start()
        time.sleep(60)
        os._exit(1)
    wait_until((tmp_path / "up").exists, 20)
    (follower,) = psutil.Process(pid).children()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_until(lambda: is_over(follower.pid), 10)


def test_what_a_killed_server_left_is_found_and_ended_and_nothing_else(tmp_path: Path) -> None:
    folders = [Folder(tmp_path / name) for name in "ab"]
    processes = []
    for folder in folders:
        one = part(folder.path, DEAF)
        one.env = dict(os.environ) | {MARK: str(folder.path)}
        one.start()
        processes.append(one)
    wait_until(lambda: all((folder.path / "up").exists() for folder in folders), 20)
    folders[0].postgres.mkdir()
    (folders[0].postgres / "postmaster.pid").write_text("1\n")
    assert end_leftovers(folders[0]) == 1
    assert is_over(processes[0].pid)
    assert not is_over(processes[1].pid)
    assert not (folders[0].postgres / "postmaster.pid").exists()
    assert end_leftovers(folders[0]) == 0
    for one in processes:
        one.stop(hurry=lambda: True)


def is_over(pid: int) -> bool:
    """Ended, though perhaps nobody has reaped it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_temporary_files_of_a_killed_part_are_gone_once_it_is_started_again(tmp_path: Path) -> None:
    def leave() -> None:
        wait_until(lambda: len(list(scratch.iterdir())) == 1, 10)
        old.extend(scratch.iterdir())
        os.kill(uploads.pid, signal.SIGKILL)
        wait_until(lambda: scratch.is_dir() and set(scratch.iterdir()) - set(old), 20)

    old: list[Path] = []
    scratch = tmp_path / "tmp"
    code = "import tempfile, time; tempfile.mkdtemp(); open('up', 'w').close(); time.sleep(60)"
    with Supervisor(lambda line: None) as supervisor:
        uploads = part(tmp_path, code)
        uploads.scratch = scratch
        supervisor.add(uploads)
        supervisor.until_up()
        thread = later(leave)
        supervisor.forever()
    thread.join()
    assert len(old) == 1
    assert not old[0].exists()


def test_a_process_is_there_until_its_last_thread_has_ended(tmp_path: Path) -> None:
    code = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print('up', flush=True); ctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        seen = psutil.Process(process.pid)
        wait_until(lambda: seen.status() == psutil.STATUS_ZOMBIE, 10)
        assert still_there([seen], seconds=0) == [seen]
        process.kill()
        assert still_there([seen], seconds=10) == []


def test_a_start_waits_a_moment_for_ports_but_not_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(InputError, match="already in use"):
            _await_ports(port, 0)
        timer = threading.Timer(0.5, held.close)
        timer.start()
        assert _await_ports(port, 0)[0] == port
        timer.join()
