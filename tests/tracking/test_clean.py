"""What `clean` takes of a run's folder, and what it never does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from imagenette.errors import InputError
from imagenette.results import Status
from imagenette.tracking.outbox import read_card
from imagenette.training.clean import clean
from imagenette.training.job import Result
from tests.tracking.tracking_helpers import Server, open_run

STATE = 3_000_000
MODEL = {"MLmodel": b"artifact_path: selected\nflavors: {}\n", "weights.safetensors": b"w" * 2_000_000}


def make_run(output: Path, uri: str, status: Status, *, offline: bool = False) -> Path:
    """A run's folder as a training leaves it, or one of earlier code: with its checkpoints."""
    tracker = open_run(output, uri, offline=offline)
    for name in ("last.pt", "previous.pt", "selected.pt"):
        (output / "checkpoints").mkdir(exist_ok=True)
        (output / "checkpoints" / name).write_bytes(os.urandom(STATE))
    folder = output / "models/selected"
    folder.mkdir(parents=True)
    for name, content in MODEL.items():
        (folder / name).write_bytes(content)
    if status.complete:
        tracker.model("selected", folder, step=1, metrics={})
    unsynced = tracker.close(status)
    Result(status=status, unsynced=unsynced).write(output)
    return output


def files(output: Path) -> set[str]:
    return {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}


def test_a_finished_run_gives_up_what_the_server_has_and_is_still_finished(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = make_run(tmp_path / "run", server.uri, Status.FINISHED)
    before = files(output)
    freed = 3 * STATE + sum(path.stat().st_size for path in (output / "models/selected").iterdir())
    assert clean([tmp_path], yes=False) == freed
    assert files(output) == before, "it only told"
    assert "with --yes" in capsys.readouterr().out
    assert clean([tmp_path], yes=True) == freed
    assert clean([tmp_path], yes=False) == 0
    assert capsys.readouterr().out.endswith(" 0.0 MB  would be freed\n"), "nothing that --yes would do"
    assert files(output) == {name for name in before if name.startswith(("outbox/", "result.json"))}
    ended = Result.read(output)
    assert ended
    assert ended.status is Status.FINISHED
    assert clean([tmp_path], yes=True) == 0


@pytest.mark.parametrize("status", [Status.PREEMPTED, Status.FAILED, Status.DIVERGED, None])
def test_a_run_that_can_go_on_keeps_everything(tmp_path: Path, uri: str, status: Status | None) -> None:
    output = make_run(tmp_path / "run", uri, status or Status.FAILED)
    if status is None:  # killed outright: there is no word of its end
        (output / "result.json").unlink()
    before = files(output)
    assert clean([output], yes=True) == 0
    assert files(output) == before


def test_a_run_that_a_process_holds_keeps_everything(tmp_path: Path, uri: str) -> None:
    output = make_run(tmp_path / "run", uri, Status.FINISHED)
    before = files(output)
    again = subprocess.Popen([sys.executable, "-c", HOLD, str(output)], stdout=subprocess.PIPE)
    try:
        assert again.stdout
        assert again.stdout.readline()
        assert clean([output], yes=True) == 0
        assert files(output) == before
    finally:
        again.kill()
        again.wait()
    assert clean([output], yes=True) > 0, "once it was killed"


HOLD = """
import sys, time
from pathlib import Path
from imagenette.tracking.outbox import Outbox
held = Outbox(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_unsent_models_stay(tmp_path: Path, uri: str) -> None:
    output = make_run(tmp_path / "run", uri, Status.FINISHED, offline=True)
    assert clean([output], yes=True) == 3 * STATE
    assert {f"models/selected/{name}" for name in MODEL} <= files(output)


def test_models_stay_that_the_server_lacks_or_reads_from_here(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = make_run(tmp_path / "run", server.uri, Status.FINISHED)
    shutil.rmtree(output / "checkpoints")
    client = MlflowClient(server.uri)
    run = client.get_run(read_card(output).run_id)
    kept = files(output)
    [model] = [
        m for m in client.search_logged_models([run.info.experiment_id]) if m.source_run_id == run.info.run_id
    ]
    stored = next((server.folder / "artifacts").rglob(f"{model.model_id}/artifacts/weights.safetensors"))
    whole = stored.read_bytes()
    for damage, why in (
        (lambda: stored.write_bytes(whole[:-1]), "does not have selected whole"),
        (lambda: (stored.write_bytes(whole), server.kill()), "does not answer"),
    ):
        damage()
        assert clean([output], yes=True) == 0
        assert files(output) == kept
        assert why in capsys.readouterr().out
    server.start()
    assert clean([output], yes=True) > 0


def test_where_no_run_lies_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run lies here"):
        clean([tmp_path], yes=True)
