"""Checkpoints: whole or refused, the previous one kept, everything in them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagenette import checkpoint
from imagenette.checkpoint import Checkpoints, Damaged
from imagenette.errors import RunError


def test_the_newest_whole_state_is_loaded_and_the_one_before_is_kept(tmp_path):
    store = Checkpoints(tmp_path / "checkpoints")
    assert store.load() is None
    for step in (1, 2, 3):
        store.save({"step": step, "weights": torch.full((3,), float(step))})
    assert store.load()["step"] == 3
    assert checkpoint.read(tmp_path / "checkpoints/previous.pt")["step"] == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_or_missing_end_is_seen(tmp_path, data):
    path = tmp_path / "state.pt"
    checkpoint.write(path, {"weights": torch.arange(20.0)})
    written = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(written) - 1))
    if data.draw(st.booleans()):
        written[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del written[at:]
    path.write_bytes(written)
    with pytest.raises(Damaged, match="damaged"):
        checkpoint.read(path)


def test_a_damaged_state_falls_back_to_the_one_before_and_says_so(tmp_path):
    store = Checkpoints(tmp_path)
    store.save({"step": 1})
    store.save({"step": 2})
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:-1])
    said = []
    assert store.load(said.append)["step"] == 1
    assert len(said) == 1
    assert str(last) in said[0]
    (tmp_path / "previous.pt").write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint in .* is whole"):
        store.load(said.append)


@pytest.mark.parametrize("moment", ["before the old one moves", "between the two renames"])
def test_a_kill_at_any_moment_of_saving_leaves_a_whole_state(tmp_path, moment):
    store = Checkpoints(tmp_path)
    store.save({"step": 1})
    checkpoint.write(tmp_path / "last.pt.writing", {"step": 2})
    if moment == "between the two renames":
        (tmp_path / "last.pt").replace(tmp_path / "previous.pt")
    assert store.load()["step"] == 1
    store.save({"step": 3})
    assert store.load()["step"] == 3


FILL = """
import resource, signal, sys, torch
from pathlib import Path
from imagenette.checkpoint import Checkpoints
from imagenette.errors import RunError
store = Checkpoints(Path(sys.argv[1]))
store.save({"step": 1, "weights": torch.zeros(1000)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write past the limit fails with an OSError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.save({"step": 2, "weights": torch.zeros(1_000_000)})
except RunError as error:
    print(error)
    sys.exit(0)
sys.exit("the save did not fail")
"""


def test_a_save_that_runs_out_of_room_leaves_the_previous_state_whole(tmp_path):
    """The limit is the process's own (RLIMIT_FSIZE); a full disk fails in the same place, in write()."""
    done = subprocess.run([sys.executable, "-c", FILL, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot save the checkpoint" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert Checkpoints(tmp_path).load()["step"] == 1
    assert not list(tmp_path.glob("*.writing")), "what was half written must be gone"


def test_no_code_is_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "evil").touch, ())

    checkpoint.write(tmp_path / "state.pt", {"evil": Evil()})
    with pytest.raises(Exception, match=r"weights_only|Unsupported|unpickl"):
        checkpoint.read(tmp_path / "state.pt")
    assert not (tmp_path / "evil").exists()
