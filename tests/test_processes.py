"""Signals of this machine, as the systems that people train on send them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from imagenette.processes import STOPS, stop_signals


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
