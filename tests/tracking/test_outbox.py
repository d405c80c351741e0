"""Laws of the durable log, without MLflow."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imagenette.errors import InputError, RunError
from imagenette.tracking.outbox import Card, Outbox, count_lacking, read_card, read_refused


def filled(output: Path, count: int = 3) -> Outbox:
    outbox = Outbox(output)
    for number in range(count):
        outbox.append("epoch", step=number)
    return outbox


def test_what_was_appended_is_there_after_reopening(tmp_path: Path) -> None:
    filled(tmp_path).close()
    with Outbox(tmp_path) as outbox:
        assert [r.body for r in outbox.records] == [{"step": 0}, {"step": 1}, {"step": 2}]
        assert outbox.pending == 3


def test_acked_records_are_not_pending_after_reopening(tmp_path: Path) -> None:
    with filled(tmp_path) as outbox:
        outbox.ack(outbox.records[1])
    with Outbox(tmp_path) as outbox:
        head = outbox.head()
        assert head is not None
        assert head.seq == 2
        assert count_lacking(tmp_path) == 1


def test_losing_the_acked_file_only_means_sending_again(tmp_path: Path) -> None:
    with filled(tmp_path) as outbox:
        outbox.ack(outbox.records[2])
    (tmp_path / "outbox" / "acked").unlink()
    with Outbox(tmp_path) as outbox:
        assert outbox.pending == 3


@pytest.mark.parametrize("tail", [b'{"kind": "epoch", "st', b"\0\0\0\0", b"\0\0\n", b"{}\n\0"])
def test_a_torn_last_line_is_dropped_and_overwritten(tmp_path: Path, tail: bytes) -> None:
    filled(tmp_path).close()
    with (tmp_path / "outbox" / "records.jsonl").open("ab") as file:
        file.write(tail)
    with Outbox(tmp_path) as outbox:
        assert outbox.pending == 3
        outbox.append("epoch", step=3)
    with Outbox(tmp_path) as outbox:
        assert [r.body["step"] for r in outbox.records] == [0, 1, 2, 3]


def test_a_spoiled_line_in_the_middle_spoils_no_other(tmp_path: Path) -> None:
    filled(tmp_path).close()
    path = tmp_path / "outbox" / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\xff garbage\n" + lines[2])
    with Outbox(tmp_path) as outbox:
        assert [r.kind for r in outbox.records] == ["epoch", "unreadable", "epoch"]


@pytest.mark.parametrize("room", [0, 10, 200])
def test_a_full_disk_is_said_and_leaves_the_log_whole(tmp_path: Path, room: int) -> None:
    """The limit is this process's own; a disk that takes a part of a record fails in the same calls."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    with filled(tmp_path) as outbox:
        size = (tmp_path / "outbox/records.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, before[1][1]))
        try:
            with pytest.raises(RunError, match="File too large"):
                outbox.append("epoch", step=3, note="x" * 300)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before[1])
            signal.signal(signal.SIGXFSZ, before[0])
        outbox.append("epoch", step=4)
    with Outbox(tmp_path) as outbox:
        assert [r.body["step"] for r in outbox.records] == [0, 1, 2, 4]


def test_a_refused_record_stays_counted(tmp_path: Path) -> None:
    with filled(tmp_path) as outbox:
        outbox.refuse(outbox.records[0], "no")
        assert (outbox.pending, outbox.lacking) == (2, 3)
    assert read_refused(tmp_path) == [(0, "no")]
    assert count_lacking(tmp_path) == 3


def test_a_live_process_keeps_others_out_and_a_dead_one_does_not(tmp_path: Path) -> None:
    hold = (
        "import sys, time, pathlib; from imagenette.tracking.outbox import Outbox;"
        "o = Outbox(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=f"in use by process {holder.pid}"):
        Outbox(tmp_path)
    holder.kill()
    holder.wait()
    Outbox(tmp_path).close()


def test_the_card_survives(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        card = outbox.write_card(Card(uid="u", experiment="e", run_name="n", tags={"a": "b"}, start_time=1))
        known = outbox.update_card(run_id="r")
    assert read_card(tmp_path) == known
    assert known.uid == card.uid
    (tmp_path / "outbox" / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"run\.json"):
        read_card(tmp_path)
