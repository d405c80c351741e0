"""A run is opened beside the first steps: calls wait for it, and raise what kept it from being opened."""

import sys
import threading

import pytest

from imagenette.errors import RunError
from imagenette.results import Status
from imagenette.tracking.mlflow_tracker import MlflowTracker
from tests.tracking.tracking_helpers import epoch, small_card


def tracker(output, open_run):
    """An offline tracker that calls open_run when it opens its run."""

    class Opening(MlflowTracker):
        def _open(self):
            open_run()
            return super()._open()

    return Opening(output, small_card(), tracking_uri=None, offline=True)


def kinds(tracker):
    return [record.kind for record in tracker._outbox.records]


def test_a_call_waits_for_the_run_and_the_question_whether_it_is_lost_does_not(tmp_path):
    opened = threading.Event()
    slow = tracker(tmp_path, lambda: opened.wait(10))
    slow.begin()
    slow.begin()
    assert not slow.lost
    assert kinds(slow) == []
    threading.Timer(0.1, opened.set).start()
    slow.tag(reason="any")
    assert kinds(slow) == ["open", "tags"]
    assert slow.run_id is None
    assert not slow.lost


def test_what_kept_the_run_from_being_opened_is_raised_by_every_call(tmp_path):
    def open_run():
        raise RunError("no such run")

    lost = tracker(tmp_path, open_run)
    calls = (
        lambda: lost.run_id,
        lambda: lost.log(epoch(1)),
        lambda: lost.tag(reason="any"),
        lambda: lost.artifact(tmp_path),
        lambda: lost.model("last", tmp_path, step=1, metrics={}),
        lambda: lost.result({}),
        lambda: lost.close(Status.FAILED),
    )
    for call in calls:
        with pytest.raises(RunError, match="no such run"):
            call()
    assert lost.lost


def test_nothing_is_opened_before_training_is_under_way_or_a_record_comes(tmp_path):
    opened = []
    waiting = tracker(tmp_path, lambda: opened.append(1))
    assert not waiting.lost
    assert opened == []
    waiting.tag(reason="a stop before the first step")
    assert opened == [1]


def test_threads_that_ask_at_once_open_one_run(tmp_path):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for turn in range(100):
            opened = []
            start = threading.Barrier(4)
            one = tracker(tmp_path / str(turn), lambda opened=opened: opened.append(1))

            def ask(one=one, start=start):
                start.wait(10)
                one.tag(reason="any")

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert opened == [1]
            assert kinds(one) == ["open", "tags", "tags", "tags", "tags"]
            one.close(Status.FINISHED)
    finally:
        sys.setswitchinterval(before)
