"""The folder of a run, its name, and what its end means."""

import json

import pytest

from imagenette.config import resolve
from imagenette.errors import InputError
from imagenette.results import Status
from imagenette.training.job import Job, Result, as_begun, check_output, claim_output, read_config


def job(output, **knobs):
    return Job(config=resolve({"data": "digits", **knobs}), output=output)


def test_an_output_folder_belongs_to_one_config(tmp_path):
    claim_output(job(tmp_path / "a", depth=18))
    check_output(job(tmp_path / "a", depth=18, nproc=2))  # the same experiment, run otherwise
    check_output(job(tmp_path / "b", depth=50))
    with pytest.raises(InputError, match=r"depth=18 \(not 50\): choose another folder"):
        check_output(job(tmp_path / "a", depth=50))


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
