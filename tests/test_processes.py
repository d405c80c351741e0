"""Signals of this machine, as the systems that people train on send them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from imagenette.processes import STOPS, lives, place, started, stop_signals
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def terminal() -> Iterator[None]:
    """As if these tests did not run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_each_request_to_stop_is_noted_and_kills_nobody(number: str) -> None:
    before = {each: signal.getsignal(each) for each in STOPS}
    with stop_signals() as received:
        os.kill(os.getpid(), signal.Signals[number])
        assert received == [signal.Signals[number]]
    assert {each: signal.getsignal(each) for each in STOPS} == before


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signals() as received:
        os.kill(os.getpid(), signal.SIGHUP)
    assert received == []


def test_in_another_thread_than_the_first_nothing_is_handled_and_nothing_refused() -> None:
    """As under a notebook's server: Python sets no handler there."""
    before = {each: signal.getsignal(each) for each in STOPS}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_during).result() == (before, [])


def _during() -> tuple[dict[signal.Signals, object], list[int]]:
    with stop_signals() as received:
        return {each: signal.getsignal(each) for each in STOPS}, received


def test_a_process_lives_whatever_clock_is_set_and_its_number_alone_says_nothing(monkeypatch) -> None:
    began = started(os.getpid())
    assert 0 < began <= time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(
        psutil._pslinux, "boot_time", lambda: 1.0
    )  # what psutil adds: it moves with the clock
    assert lives(os.getpid(), began)
    assert not lives(os.getpid(), began - 0.1)
    monkeypatch.undo()
    assert lives(os.getpid(), psutil.Process().create_time()), "as earlier versions wrote it"
    with subprocess.Popen(["sleep", "60"]) as child:
        theirs = started(child.pid)
        assert lives(child.pid, theirs)
        child.kill()
        wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, 10)
        assert not lives(child.pid, theirs), "it has ended; nobody asked how"
    assert not lives(child.pid, theirs)
    assert not lives(child.pid, float("nan"))
    assert place() == place()
