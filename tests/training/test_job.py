"""The folder of a run, its name, and what its end means."""

import json
from contextlib import nullcontext

import pytest
import torch

from imagenette.config import resolve
from imagenette.data import open_dataset
from imagenette.errors import InputError
from imagenette.results import Status
from imagenette.tracking.outbox import Outbox
from imagenette.training import launch, train
from imagenette.training.distributed import World
from imagenette.training.job import (
    Job,
    Result,
    as_begun,
    check_data,
    check_output,
    claim_output,
    read_config,
)


def job(output, **knobs):
    return Job(config=resolve({"data": "digits", **knobs}), output=output)


def test_an_output_folder_belongs_to_one_config(tmp_path):
    claim_output(job(tmp_path / "a", depth=18))
    check_output(job(tmp_path / "a", depth=18, nproc=2))  # the same experiment, run otherwise
    check_output(job(tmp_path / "b", depth=50))
    with pytest.raises(InputError, match=r"depth=18 \(not 50\): choose another folder"):
        check_output(job(tmp_path / "a", depth=50))


def test_a_run_goes_on_with_the_data_it_was_opened_with_alone(tmp_path):
    """Pictures that somebody added would be trained on under the old data's name, with another holdout."""
    run, digest = job(tmp_path / "run"), open_dataset("digits").digest
    claim_output(run)
    Result(status=Status.PREEMPTED).write(run.output)
    with Outbox(run.output) as outbox:
        outbox.append("open", dataset={"digest": "a" * 64})
    line = rf"^{run.output} was trained on other data \(digest aaaaaaaaaaaa, now {digest[:12]}\): bring those"
    with pytest.raises(InputError, match=line):
        launch.train(run)
    assert Result.read(run.output), "nothing is changed"
    check_data(run, "a" * 64)
    check_data(job(tmp_path / "new"), digest)


def test_ranks_with_other_images_than_the_first_are_refused(tmp_path, monkeypatch):
    class Two(World):
        def gather(self, value):
            return [value, "f" * 64]

    monkeypatch.setattr(train, "join", lambda *_, **__: nullcontext(Two(0, 1, torch.device("cpu"))))
    with pytest.raises(InputError, match=r"^data=digits: rank 1 has other images than rank 0$"):
        train.run(job(tmp_path / "run"), open_dataset("digits"))


def test_an_output_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        claim_output(job(tmp_path / "file" / "a"))


@pytest.mark.parametrize(
    ("status", "unsynced", "offline", "code"),
    [
        ("finished", 0, False, 0),
        ("finished", 3, False, 74),
        ("finished", 3, True, 0),
        ("pruned", 3, True, 0),
        ("preempted", 0, False, 75),
        ("preempted", 2, True, 75),
        ("failed", 0, False, 1),
        ("diverged", 1, True, 1),
    ],
)
def test_exit_codes(status, unsynced, offline, code, tmp_path):
    result = Result(status=Status(status), unsynced=unsynced, metrics={"final/test_accuracy": 0.5})
    assert result.exit_code(offline=offline) == code
    result.write(tmp_path)
    assert Result.read(tmp_path) == result


def test_a_run_is_named_for_what_sets_it_apart(tmp_path):
    plain = job(tmp_path, epochs=5, nproc=2)
    assert plain.name == "resnet18 32px 5ep s1"
    other = job(tmp_path, recipe="paper", batch_size=8, epochs=5, seed=3)
    assert other.name == "resnet18 32px 5ep s3 paper batch_size=8 bn_group=2"
    assert other.setting == job(tmp_path, recipe="paper", batch_size=8, epochs=5, seed=4).setting


def test_a_run_goes_on_by_the_kernels_that_it_was_begun_with(tmp_path):
    first, later = (
        Job(config=resolve({"data": "digits", "kernels": kernels}), output=tmp_path)
        for kernels in ("stock", "auto")
    )
    assert as_begun(later) == later, "nothing was begun"
    claim_output(first)
    check_output(later)
    assert as_begun(later).config.kernels == "stock"
    held = json.loads((tmp_path / "config.json").read_text())
    del held["kernels"]  # of a version that had only torch's own
    (tmp_path / "config.json").write_text(json.dumps(held))
    assert as_begun(later).config.kernels == read_config(tmp_path).kernels == "stock"
    for text in ("[]", "{", '{"depth": 1}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match="is missing or damaged"):
            as_begun(later)
