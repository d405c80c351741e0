"""A study's pruner reaches a real training: it is asked after each epoch, and its word stops every rank."""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from imagenette.records import Epoch
from imagenette.training.pruning import ADDRESS, Reports, ask, listening
from tests.integration.conftest import logged_epochs, processes_of, wait_until


@contextmanager
def judged(last: int) -> Iterator[tuple[str, list[Reports]]]:
    """A pruner that stops after epoch `last`; its address, and what it was told."""
    told: list[Reports] = []
    over = threading.Event()

    def judge(reports: Reports) -> bool:
        told.append(reports)
        return max(reports) >= last

    def serve() -> None:
        while not over.is_set():
            if select.select([listener], [], [], 0.1)[0]:
                listener.answer(judge)

    with listening() as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.address, told
        over.set()
        thread.join()


def test_pruned_after_the_second_epoch_on_every_rank(start, tmp_path):
    output = tmp_path / "run"
    with judged(last=2) as (address, told):
        training = start(output, env={ADDRESS: address}, nproc="2")
        assert training.wait() == 0, training.said  # done as told
    assert [epoch["step"] for epoch in logged_epochs(output)] == [1, 2]
    assert [sorted(reports) for reports in told] == [[1], [1, 2]]
    assert 0 <= told[-1][2]["holdout/accuracy"] <= 1
    result = json.loads((output / "result.json").read_text())
    assert (result["status"], result["message"]) == ("pruned", "pruned after epoch 2 of 4")
    last = json.loads((output / "outbox/records.jsonl").read_text().splitlines()[-1])
    assert (last["kind"], last["mlflow_status"], last["tags"]["status"]) == ("end", "KILLED", "pruned")
    wait_until(lambda: not processes_of(output), seconds=5)


def test_nobody_listening_means_go_on(tmp_path):
    epoch = Epoch(
        index=1,
        timestamp=0,
        train_loss=1.0,
        train_accuracy=0.5,
        lr=0.1,
        speed_images_per_second=1.0,
        speed_epoch_seconds=1.0,
    )
    assert ask(str(tmp_path / "nobody"), [epoch]) is False
