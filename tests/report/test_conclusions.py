"""The reference's own tables as if they were single runs: which of its conclusions stand."""

from __future__ import annotations

import pytest

from imagenette.report.compare import compare
from imagenette.report.conclusions import conclusions
from imagenette.report.study import published
from imagenette.study.definition import load


def published_conclusions(name: str) -> tuple[list[str], dict[str, str]]:
    study = published(load(name).outline())
    assert study is not None
    assert [run.test_images for run in study.runs] == [3925] * len(study.arms)
    return conclusions(study), {each.arm: each.verdict for each in compare(study)}


def test_no_depth_differs_from_depth_18():
    said, verdicts = published_conclusions("depth")
    assert verdicts == dict.fromkeys(("depth=34", "depth=50", "depth=101", "depth=152"), "open")
    assert said[0] == (
        "No difference is shown between depth=18 and depth=34, depth=50, depth=101 and depth=152; "
        "differences beyond 2.2 points are unlikely."
    )
    assert any(sentence.startswith("Every arm is one run") for sentence in said)


def test_batches_of_8_and_128_are_worse_than_32():
    said, verdicts = published_conclusions("batch-size")
    assert [verdicts[f"batch_size={size}"] for size in (8, 16, 64, 128)] == ["worse", "open", "open", "worse"]
    assert said[0] == (
        "batch_size=8 is worse than batch_size=32 by 2.8 points (1.5 to 4.1 for new images; single runs; "
        "corrected p < 0.0001)."
    )
    assert said[1].startswith("batch_size=128 is worse than batch_size=32 by 2.4 points")
    assert said[2].startswith(
        "No difference from batch_size=32 is shown for batch_size=16 and batch_size=64;"
    )


def test_no_weight_decay_is_worse_and_the_published_best_is_not_shown_to_be_better():
    said, verdicts = published_conclusions("weight-decay")
    assert verdicts.pop("weight_decay=0.0") == "worse"
    assert set(verdicts.values()) == {"open"}
    assert "weight_decay=0.005" in verdicts
    assert said[0].startswith("weight_decay=0.0 is worse than weight_decay=0.0005 by 1.8 points (")


@pytest.mark.parametrize("name", ["optimizer", "lr-weight-decay", "search"])
def test_studies_without_published_numbers_have_none_to_test(name):
    assert published(load(name).outline()) is None
