"""Checkpoints: whole or refused, the previous one kept, everything in them."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagenette.config import OPTIMIZERS, resolve
from imagenette.data import open_dataset
from imagenette.errors import InputError, RunError
from imagenette.network import models
from imagenette.records import Epoch, Predictions
from imagenette.training import checkpoint, optim, train
from imagenette.training.checkpoint import Checkpoints, Damaged
from imagenette.training.distributed import World
from imagenette.training.job import Job, Result, claim_output
from imagenette.training.step import Follower, TrainState, new_state

ALONE = World(0, 1, torch.device("cpu"))


def test_a_checkpoint_opens_as_the_docs_say(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs/tracking.md").read_text("utf-8")
    section = page.partition("## Opening a checkpoint")[2].partition("\n## ")[0]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    net = models.by_name("resnet18", classes=10)
    path = tmp_path / "runs/mine/checkpoints/selected.pt"
    checkpoint.write(path, {"epoch": 7, "net": net.state_dict()})
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(compile(code, "docs/tracking.md", "exec"), found)
    assert capsys.readouterr().out == "7\n"
    assert all(torch.equal(one, net.state_dict()[name]) for name, one in found["net"].state_dict().items())
    with path.open("rb") as file:
        file.readline()
        assert torch.load(file, weights_only=True)["epoch"] == 7


def fresh_state(kind: str = "sgd") -> TrainState:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    optimizer = optim.build(
        net, kind, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3, decay_norm_bias=False
    )
    return new_state(net, optimizer, averaged=True, device=ALONE.device)


def follow(state: TrainState, decay: float) -> None:
    follower = Follower(state.average, state.net)
    follower.set_decay(decay)
    follower()


def trained_state(steps: int, kind: str = "sgd") -> TrainState:
    state = fresh_state(kind)
    for _ in range(steps):
        state.net(torch.randn(8, 3, 2, 2)).square().sum().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        follow(state, 0.9)
        state.meters.loss += 1.5
        state.meters.images += 8
        state.meters.step += 1
        state.step += 1
    return state


def epoch(index: int, holdout: float) -> Epoch:
    return Epoch(
        index=index,
        timestamp=1000 + index,
        train_loss=0.1 + 0.2,
        train_accuracy=0.5,
        holdout_loss=1.0,
        holdout_accuracy=holdout,
        test_loss=1.0,
        test_accuracy=0.25,
        lr=0.1,
        speed_images_per_second=10.0,
        speed_epoch_seconds=2.0,
    )


def saved_step(store: Checkpoints, said: list[str] | None = None) -> int | None:
    newest = store.newest((said if said is not None else []).append)
    return newest and newest["step"]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_restored_state_goes_on_as_the_saved_one_would(tmp_path, kind):
    """Weights, momentum, averaged weights, sums, position, history and random states: all or the next step
    would differ."""
    state = trained_state(3, kind)
    state.history.append(epoch(1, 0.5))
    store = Checkpoints(tmp_path, ALONE)
    store.save(state)
    drawn = torch.rand(4)
    restored = fresh_state(kind)
    store.restore(restored)
    assert torch.equal(torch.rand(4), drawn), "the random state is the one of the save"
    assert (restored.epoch, restored.step, restored.history) == (state.epoch, state.step, state.history)
    assert restored.meters == state.meters
    x = torch.randn(8, 3, 2, 2)
    for one in (state, restored):
        one.net(x).square().sum().backward()
        one.optimizer.step()
        follow(one, 0.9)
    for name, module in (("net", state.net), ("average", state.average)):
        twin = getattr(restored, name).state_dict()
        assert all(torch.equal(tensor, twin[key]) for key, tensor in module.state_dict().items()), name


def test_a_state_goes_on_with_the_data_it_was_trained_on_alone(tmp_path):
    Checkpoints(tmp_path, ALONE, data="a" * 64).save(trained_state(1))
    with pytest.raises(InputError, match=r"trained on other data \(digest aaaaaaaaaaaa, now bbbbbbbbbbbb\)"):
        Checkpoints(tmp_path, ALONE, data="b" * 64).restore(fresh_state())
    Checkpoints(tmp_path, ALONE, data="a" * 64).restore(fresh_state())
    saved = checkpoint.read(tmp_path / "last.pt")
    del saved["data"]  # as earlier versions wrote it
    checkpoint.write(tmp_path / "last.pt", saved)
    Checkpoints(tmp_path, ALONE, data="b" * 64).restore(fresh_state())


def test_the_newest_state_is_loaded_and_the_one_before_is_kept(tmp_path):
    store = Checkpoints(tmp_path / "checkpoints", ALONE)
    assert saved_step(store) is None
    for steps in (1, 2, 3):
        store.save(trained_state(steps))
    assert saved_step(store) == 3
    assert checkpoint.read(tmp_path / "checkpoints/previous.pt")["step"] == 2


def test_the_selected_weights_are_those_of_the_best_epoch_on_the_holdout(tmp_path):
    store, state = Checkpoints(tmp_path, ALONE), trained_state(1)
    weights = {}
    for index, accuracy in enumerate([0.4, 0.9, 0.6], start=1):
        with torch.no_grad():
            state.average[0].weight.fill_(index)
        state.history.append(epoch(index, accuracy))
        state.epoch = index + 1
        said = Predictions(np.array([0, 1]), np.array([index, 1]), np.array([0.5, 0.25], dtype=np.float32))
        store.save_epoch(state, said, by_holdout=True)
        weights[index] = float(store.selected().net["0.weight"][0, 0])
    assert weights == {1: 1.0, 2: 2.0, 3: 2.0}
    kept = store.selected()
    assert kept.epoch == 2
    assert kept.predictions.predicted.tolist() == [2, 1]
    assert kept.predictions.accuracy == 0.5


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
    store = Checkpoints(tmp_path, ALONE)
    store.save(trained_state(1))
    store.save(trained_state(2))
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:-1])
    said: list[str] = []
    assert saved_step(store, said) == 1
    assert len(said) == 1
    assert str(last) in said[0]
    (tmp_path / "previous.pt").write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint in .* is whole"):
        store.newest(said.append)


@pytest.mark.parametrize("moment", ["while writing", "before the old one moves", "between the two renames"])
def test_a_kill_at_any_moment_of_saving_leaves_a_whole_state(tmp_path, moment):
    store = Checkpoints(tmp_path, ALONE)
    store.save(trained_state(1))
    if moment == "while writing":
        (tmp_path / "fresh.pt.writing").write_bytes(b"half")
    else:
        checkpoint.write(tmp_path / "fresh.pt", {"step": 2})
    if moment == "between the two renames":
        (tmp_path / "last.pt").replace(tmp_path / "previous.pt")
    assert saved_step(store) == 1
    store.save(trained_state(3))
    assert saved_step(store) == 3


def test_a_state_of_an_earlier_version_goes_on_after_a_kill_between_two_files(tmp_path):
    Checkpoints(tmp_path, ALONE).save(trained_state(1))
    saved = checkpoint.read(tmp_path / "last.pt")
    del saved["selected"]  # which epoch it had selected was not in it
    checkpoint.write(tmp_path / "last.pt", saved)
    checkpoint.write(tmp_path / "choice.pt", {"epoch": 2, "net": {}, "predictions": {}})
    Checkpoints(tmp_path, ALONE).restore(fresh_state())
    assert not (tmp_path / "choice.pt").exists()


@pytest.mark.parametrize(("killed", "kept"), [("before the state", 1), ("after it", 2), ("at first", None)])
def test_the_selected_weights_never_run_ahead_of_the_state(tmp_path, monkeypatch, killed, kept):
    """What comes after a kill need not be what was lost: on a GPU, or with other processes."""
    state, answers = trained_state(1), Predictions(np.array([0]), np.array([0]), np.array([0.5], np.float32))
    store = Checkpoints(tmp_path, ALONE)
    for index, accuracy in enumerate([0.4, 0.9], start=1):
        state.history.append(epoch(index, accuracy))
        state.epoch = index + 1
        if killed == "at first" or (killed == "before the state" and index == 2):
            monkeypatch.setattr(store, "_replace", lambda packed: sys.exit())
        elif index == 2:
            monkeypatch.setattr(store, "_choice", tmp_path / "nowhere")
            checkpoint.write(tmp_path / "choice.pt", {"epoch": 2, "net": {}, "predictions": {}})
        with suppress(SystemExit):
            store.save_epoch(state, answers, by_holdout=True)
    again = Checkpoints(tmp_path, ALONE)
    again.restore(fresh_state())
    assert not (tmp_path / "choice.pt").exists()
    if kept:
        assert checkpoint.read(tmp_path / "selected.pt")["epoch"] == kept
    else:
        assert not (tmp_path / "selected.pt").exists()


FILL = """
import resource, signal, sys, torch
from pathlib import Path
from imagenette.training import checkpoint
from imagenette.errors import InputError, RunError
path = Path(sys.argv[1])
checkpoint.write(path, {"step": 1, "weights": torch.zeros(1000)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write past the limit fails with an OSError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.write(path, {"step": 2, "weights": torch.zeros(1_000_000)})
except RunError as error:
    print(error)
    sys.exit(0)
sys.exit("the save did not fail")
"""


def test_a_save_that_runs_out_of_room_leaves_the_previous_state_whole(tmp_path):
    """The limit is the process's own (RLIMIT_FSIZE); a full disk fails in the same call."""
    path = tmp_path / "last.pt"
    done = subprocess.run([sys.executable, "-c", FILL, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"cannot save {path}: File too large")
    assert len(done.stdout.splitlines()) == 1
    assert checkpoint.read(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path], "what was half written must be gone"


def test_no_code_is_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "evil").touch, ())

    checkpoint.write(tmp_path / "state.pt", {"evil": Evil()})
    with pytest.raises(Exception, match=r"weights_only|Unsupported|unpickl"):
        checkpoint.read(tmp_path / "state.pt")
    assert not (tmp_path / "evil").exists()


def test_a_best_epoch_that_waits_for_its_save_is_kept_as_it_was(tmp_path):
    store, state = Checkpoints(tmp_path, ALONE, share=1e-9), trained_state(1)
    saved: list[list[int]] = []
    for index, accuracy in enumerate([0.4, 0.9, 0.6], start=1):
        with torch.no_grad():
            state.average[0].weight.fill_(index)
        state.history.append(epoch(index, accuracy))
        state.epoch = index + 1
        answers = Predictions(np.array([0]), np.array([index]), np.array([0.5], dtype=np.float32))
        fresh = store.save_epoch(state, answers, by_holdout=True, end=False)
        saved.append([each.index for each in fresh])
    assert saved == [[1], [], []]
    assert store.selected().epoch == store.epochs == 1
    assert [each.index for each in store.save(state)] == [2, 3]
    kept = store.selected()
    assert (kept.epoch, float(kept.net["0.weight"][0, 0])) == (2, 2.0)
    assert kept.predictions.predicted.tolist() == [2]


def tracked_epochs(output: Path) -> list[int]:
    records = [json.loads(line) for line in (output / "outbox/records.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if record["kind"] == "epoch"]


def test_epochs_are_tracked_once_they_are_saved_and_each_only_once(tmp_path, monkeypatch):
    """Where saving takes more than its share, as on a GPU: stopped, broken off, and gone on with."""
    digits = open_dataset("digits")
    knobs = {
        "data": "digits",
        "limit": 96,
        "batch_size": 32,
        "epochs": 99,
        "precision": "float32",
        "lr": 0.01,
    }
    config = resolve({**knobs, "device": "cpu"})

    def go(output: Path, stop=lambda: False) -> Result:
        job = Job(config=config, output=output, offline=True)
        claim_output(job)
        return train.run(job, digits, stop=stop)

    monkeypatch.setattr(
        train,
        "Checkpoints",
        lambda folder, world, data, share: Checkpoints(folder, world, data=data, share=1e-9),
    )
    output = tmp_path / "interrupted"
    steps = iter(range(1000))
    stopped = go(output, lambda: next(steps) >= 20)
    assert stopped.status == "preempted"
    until = tracked_epochs(output)
    assert until == [*range(1, len(until) + 1)]
    assert len(until) > 1

    def break_off() -> bool:
        if next(steps) >= 40:
            raise RuntimeError("the plug is pulled")
        return False

    with pytest.raises(RuntimeError, match="plug"):
        go(output, break_off)
    assert tracked_epochs(output) == [*until, len(until) + 1]  # more were trained, and not saved
    assert go(output, lambda: next(steps) >= 54).status == "preempted"
    again = tracked_epochs(output)
    assert again == [*range(1, len(again) + 1)]
    assert len(again) > len(until) + 1
