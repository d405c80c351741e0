"""Laws of the gate: the champion is a function of the versions, and a better model is never lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagenette.errors import InputError
from imagenette.registry.gate import GATES, Entry, Evidence, judge, reigns
from imagenette.tracking.address import Address

IMAGES = 40
HOLDOUT, TEST = "selected/holdout_accuracy", "selected/test_accuracy"


def evidence(value: float, wrong: int = 0, *, digest: str = "a" * 64, metric: str = HOLDOUT) -> Evidence:
    correct = np.arange(IMAGES) >= wrong
    return Evidence(metric=metric, value=value, data_digest=digest, correct=correct)


entries = st.lists(
    st.builds(
        lambda value, wrong, gate, withdrawn: (evidence(value, wrong), gate, withdrawn),
        st.sampled_from([0.1, 0.5, 0.7, 0.9]),
        st.integers(0, IMAGES),
        st.sampled_from(GATES),
        st.booleans(),
    ),
    max_size=8,
).map(
    lambda made: [
        Entry(version=i, evidence=e, gate=gate, withdrawn=withdrawn)
        for i, (e, gate, withdrawn) in enumerate(made, 1)
    ]
)


@given(st.lists(st.booleans(), min_size=1, max_size=4000), st.floats(0, 1))
def test_evidence_survives_being_tags(correct: list[bool], value: float) -> None:
    before = Evidence(metric=TEST, value=value, data_digest="d" * 64, correct=np.array(correct))
    after = Evidence.from_tags(before.to_tags())
    assert after is not None
    assert (after.metric, after.value, after.data_digest) == (before.metric, before.value, before.data_digest)
    assert np.array_equal(after.correct, before.correct)
    assert all(len(text) < 5000 for text in before.to_tags().values())


@pytest.mark.parametrize(
    "broken", [{}, {"test_correct": "?"}, {"test_images": "x"}, {"selection_value": "y"}]
)
def test_a_version_without_whole_evidence_was_not_promoted(broken: dict[str, str]) -> None:
    tags = evidence(0.5).to_tags() | broken if broken else {}
    assert Evidence.from_tags(tags) is None


@given(entries)
def test_nobody_reigns_who_was_withdrawn_and_the_first_who_may_does(made: list[Entry]) -> None:
    history = reigns(made)
    assert not any(entry.withdrawn for entry in history)
    assert [entry.version for entry in history] == sorted(entry.version for entry in history)
    assert bool(history) == any(not entry.withdrawn for entry in made)


@given(entries, st.sets(st.integers(1, 8)))
def test_whoever_reigned_still_does_when_files_are_deleted(made: list[Entry], gone: set[int]) -> None:
    before = [entry.version for entry in reigns(made)]
    after = [entry.version for entry in reigns(made, gone=gone)]
    first = next((i for i, version in enumerate(before) if version in gone), len(before))
    assert after[: first + 1] == before[: first + 1]


def test_a_champion_over_a_deleted_one_stays_and_a_deleted_champion_need_not_be_beaten() -> None:
    made = [
        Entry(version=1, evidence=evidence(0.9), gate="better"),
        Entry(version=2, evidence=evidence(0.7), gate="force"),
        Entry(version=3, evidence=evidence(0.8), gate="better"),
    ]
    assert [e.version for e in reigns(made, gone={2})] == [1, 2, 3], "it took the place of one that reigned"
    late = Entry(version=4, evidence=evidence(0.75), gate="better")
    assert [e.version for e in reigns([*made[1:], late], gone={3})] == [2, 3, 4]
    assert [e.version for e in reigns([*made[1:], late])] == [2, 3]


@given(entries, st.sampled_from(["better", "significant"]))
def test_a_version_that_is_not_better_changes_nothing(made: list[Entry], gate: str) -> None:
    history = reigns(made)
    if history:
        worse = replace(history[-1].evidence, value=history[-1].evidence.value)
        late = Entry(version=99, evidence=worse, gate=gate)
        assert reigns([*made, late]) == history


@given(entries)
def test_withdrawing_the_champion_gives_the_place_to_an_earlier_one_or_one_that_it_kept_out(
    made: list[Entry],
) -> None:
    history = reigns(made)
    if len(history) > 1:
        champion = history[-1]
        after = reigns([replace(e, withdrawn=e.withdrawn or e is champion) for e in made])
        assert champion.version not in {entry.version for entry in after}
        before = [entry.version for entry in history[:-1]]
        assert [entry.version for entry in after[: len(before)]] == before, "who reigned before it did"


@given(st.permutations([0.3, 0.5, 0.7, 0.9]))
def test_in_whatever_order_promoters_come_the_best_is_champion(values: list[float]) -> None:
    made = [Entry(version=i, evidence=evidence(v), gate="better") for i, v in enumerate(values, 1)]
    assert reigns(made)[-1].evidence.value == 0.9


@pytest.mark.parametrize(
    ("candidate", "gate", "allowed", "words"),
    [
        (evidence(0.8, 10), "better", True, "its selected/holdout_accuracy 0.8000, the champion's 0.7000"),
        (evidence(0.7, 0), "better", False, "not better than the champion"),
        (evidence(0.6, 0), "better", False, "not better than the champion"),
        (evidence(0.8, 20), "better", False, "significantly worse on the test images"),
        (evidence(0.8, 14), "better", True, "right alone on 0 test images, wrong alone on 4, p = 0.12"),
        (evidence(0.8, 5), "significant", False, "not significantly better"),
        (evidence(0.8, 0), "significant", True, "right alone on 10 test images, wrong alone on 0, p = 0.002"),
        (evidence(0.6, 0), "significant", False, "not better than the champion"),
        (evidence(0.1, 40), "force", True, "forced; against the champion: right alone on 0"),
        (evidence(0.9, 0, digest="b" * 64), "better", False, "other data (digest bbbbbbbb)"),
        (evidence(0.9, 0, digest="b" * 64), "force", False, "--other-data allows it"),
        (evidence(0.9, 0, metric=TEST), "better", False, "cannot be compared"),
    ],
)
def test_the_gate_says_yes_or_no_and_why(candidate: Evidence, gate: str, allowed: bool, words: str) -> None:
    verdict = judge(candidate, evidence(0.7, 10), gate)
    assert verdict.allowed == allowed
    assert words in verdict.reason


def test_other_data_is_allowed_when_told_but_never_called_significant() -> None:
    other = evidence(0.9, 0, digest="b" * 64)
    assert judge(other, evidence(0.7), "better", other_data=True).allowed
    assert not judge(evidence(0.6, digest="b" * 64), evidence(0.7), "better", other_data=True).allowed
    assert not judge(other, evidence(0.7), "significant", other_data=True).allowed


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("imagenette", Address("imagenette", alias="champion")),
        ("imagenette@previous", Address("imagenette", alias="previous")),
        ("models:/a-b.c/12", Address("a-b.c", version=12)),
        ("x/007", Address("x", version=7)),
    ],
)
def test_addresses(text: str, meant: Address) -> None:
    assert Address.parse(text) == meant


@pytest.mark.parametrize("text", ["", "@champion", "a/b", "a@", "a/1/2", "a@b@c", "a b", "runs:/x/y", "a/-1"])
def test_what_is_no_address_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"allowed are NAME@ALIAS and NAME/VERSION"):
        Address.parse(text)
