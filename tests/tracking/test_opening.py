"""A tracker whose run is still being opened: its calls wait, and raise what kept the run from being had."""

import sys
import threading
from pathlib import Path

import pytest

from imagenette.errors import RunError
from imagenette.tracking import NullTracker, Tracker
from imagenette.tracking.opening import OpeningTracker


def test_a_call_waits_for_the_run_and_the_question_whether_it_is_lost_does_not():
    opened = threading.Event()
    said: list[str] = []

    class Noting(NullTracker):
        run_id = "r"

        def tag(self, **tags: str) -> None:
            said.append("tagged")

    def open_run() -> Tracker:
        assert opened.wait(10)
        said.append("opened")
        return Noting()

    tracker = OpeningTracker(open_run)
    tracker.begin()
    tracker.begin()
    assert not tracker.lost
    threading.Timer(0.1, opened.set).start()
    tracker.tag(reason="any")
    assert said == ["opened", "tagged"]
    assert tracker.run_id == "r"
    assert not tracker.lost


def test_what_kept_the_run_from_being_had_is_raised_by_every_call():
    def open_run() -> Tracker:
        raise RunError("no such run")

    tracker = OpeningTracker(open_run)
    calls = (
        lambda: tracker.run_id,
        lambda: tracker.tag(reason="any"),
        lambda: tracker.artifact(Path("config.json")),
        lambda: tracker.model("last", Path("model"), step=1, metrics={}),
        lambda: tracker.result({}, step=1),
        lambda: tracker.close("failed"),
    )
    for call in calls:
        with pytest.raises(RunError, match="no such run"):
            call()
    assert tracker.lost


def test_nothing_is_opened_before_training_is_under_way_or_a_record_comes():
    said: list[str] = []

    def open_run() -> Tracker:
        said.append("opened")
        return NullTracker()

    waiting = OpeningTracker(open_run)
    assert not waiting.lost
    assert said == []
    waiting.tag(reason="a stop before the first step")
    assert said == ["opened"]


def test_threads_that_ask_at_once_open_one_run():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            opened: list[int] = []
            start = threading.Barrier(4)

            def open_run(opened: list[int] = opened) -> Tracker:
                opened.append(1)
                return NullTracker()

            tracker = OpeningTracker(open_run)

            def ask(tracker: OpeningTracker = tracker, start: threading.Barrier = start) -> None:
                start.wait(10)
                tracker.tag(reason="any")

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert opened == [1]
    finally:
        sys.setswitchinterval(before)
