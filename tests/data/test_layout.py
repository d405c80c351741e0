from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagenette.data.layout import Layout, find_layout, passed_over
from imagenette.errors import InputError

NFC, NFD = "caf\xe9", "cafe\u0301"
GOOD = ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg"]


def test_splits_are_sorted_by_class_then_file() -> None:
    names = [
        "train/b/1.jpg",
        "train/a b/2.jpg",
        "train/a/10.jpg",
        "train/a/1.jpg",
        *GOOD[2:],
        "val/a b/1.jpg",
    ]
    layout = find_layout(names, [], "data=x")
    assert layout.classes == ("a", "a b", "b")
    assert [*layout.train] == ["train/a/1.jpg", "train/a/10.jpg", "train/a b/2.jpg", "train/b/1.jpg"]
    assert tuple(layout.test) == ("val/a/1.jpg", "val/a b/1.jpg", "val/b/1.jpg")


def test_one_top_folder_is_taken_off() -> None:
    layout = find_layout([f"imagenette2/{name}" for name in GOOD], [], "data=x")
    assert (layout.inside, layout.classes) == (("imagenette2/train/", "imagenette2/val/"), ("a", "b"))
    assert layout.train | layout.test == {name: f"imagenette2/{name}" for name in GOOD}


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_another_name_for_val_stands_in_where_there_is_no_val(name: str) -> None:
    names = [each.replace("val", name) for each in GOOD]
    assert [*find_layout(names, [], "data=x").test] == names[2:]


def test_pictures_in_test_beside_val_are_passed_over_and_said() -> None:
    names = [*GOOD, "test/c/1.jpg"]
    layout = find_layout(names, [], "data=x")
    assert [*layout.test] == GOOD[2:]
    said = "pictures outside the class folders of train/ and val/: 1, such as test/c/1.jpg"
    assert passed_over(layout, names, ["README"], [".git"]) == said


def test_a_class_that_the_halves_spell_in_two_unicode_forms_is_one() -> None:
    names = [*GOOD, f"train/{NFD}/1.jpg", f"val/{NFC}/1.jpg"]
    layout = find_layout(names, [], "data=x")
    assert layout.classes == ("a", "b", NFC)
    assert layout.train[f"train/{NFC}/1.jpg"] == f"train/{NFD}/1.jpg"
    assert layout.test[f"val/{NFC}/1.jpg"] == f"val/{NFC}/1.jpg"


def test_a_class_of_one_form_keeps_it() -> None:
    """So the data set keeps the digest that it always had."""
    names = [*GOOD, f"train/{NFD}/1.jpg", f"val/{NFD}/1.jpg"]
    assert sorted(find_layout(names, [], "x").train) == sorted(n for n in names if n.startswith("train"))


def test_folders_within_classes_belong_to_the_class() -> None:
    assert "train/a/deep/2.jpg" in find_layout([*GOOD, "train/a/deep/2.jpg"], [], "x").train


def test_images_outside_class_folders_are_left_out() -> None:
    extra = ["logo.png", "train/overview.png", "docs/a/1.png"]
    assert find_layout([*GOOD, *extra], ["docs"], "x") == find_layout(GOOD, [], "x")


@given(
    st.dictionaries(
        st.sampled_from(["a", "b c", "d"]), st.sets(st.integers(0, 99), min_size=2, max_size=40), min_size=2
    ),
    st.sampled_from(["", "flowers/", "train/", "flowers/train/"]),
    st.integers(100, 120),
)
def test_without_a_test_set_a_fifth_of_each_class_is_it_and_stays_it(
    files: dict[str, set[int]], prefix: str, more: int
) -> None:
    names = [f"{prefix}{label}/{number}.jpg" for label, numbers in files.items() for number in numbers]
    layout = find_layout(names, [], "data=x")
    assert sorted([*layout.train.values(), *layout.test.values()]) == sorted(names)
    assert all(
        own == f"{half}/{name.removeprefix(prefix)}"
        for half, split in (("train", layout.train), ("val", layout.test))
        for own, name in split.items()
    )
    assert (
        {name.split("/")[1] for name in layout.train} == set(files) == {n.split("/")[1] for n in layout.test}
    )
    assert f"{len(layout.test)} of {len(names)} pictures" in layout.split
    assert passed_over(layout, [*names, "logo.png"], [], []).startswith("pictures outside the class folders")
    grown = find_layout([*names, f"{prefix}{min(files)}/{more}.jpg"], [], "data=x")
    moved = [name for name in layout.test if name not in grown.test]
    assert len(moved) <= 1, "only one that was there for want of another"


def test_a_fifth_is_a_fifth() -> None:
    names = [f"{label}/{number}.jpg" for label in "ab" for number in range(3000)]
    assert 0.18 < len(find_layout(names, [], "x").test) / len(names) < 0.22


@pytest.mark.parametrize(
    ("names", "folders", "message"),
    [
        ([], [], "no train/"),
        (["a/1.jpg", "a/2.jpg", "b/1.jpg"], [], "b holds one picture; without val/ each class needs two"),
        (["a/1.jpg", "a/2.jpg"], [], "no train/"),
        (["val/a/1.jpg", "val/b/1.jpg"], [], "no train/"),
        (["a/1.jpg", "Test/1.jpg"], [], "no train/"),
        (["x/y/train/a/1.jpg", "x/y/val/a/1.jpg"], [], "no train/"),
        (GOOD[:2], [], "train/a holds one picture"),
        (["train/a/1.jpg", "train/a/2.jpg"], [], "a is the only class"),
        ([f"{top}/{name}" for top in "pq" for name in GOOD], [], r"train/ is in 2 folders \(p/ q/\)"),
        ([], ["train", "val"], "train/ holds no class folder"),
        (GOOD[:2], ["val"], "val/ holds no class folder"),
        (GOOD[:3], [], "class folder b is in train/ but not in val/"),
        (
            [*GOOD, *(f"train/{name}/1.jpg" for name in "cdefg")],
            [],
            "class folders c, d, e and 2 more are in train/ but not in val/; each class needs pictures in",
        ),
        ([GOOD[0], GOOD[2]], [], "a is the only class"),
        ([*GOOD, "valid/a/1.jpg"], [], "val/ and valid/ are both there; one is allowed"),
        ([*GOOD, f"val/{NFC}/1.jpg", f"val/{NFD}/1.jpg"], [], f"val/ holds {NFC} in two Unicode forms"),
        (GOOD[1:], [], "class folder a is in val/ but not in train/"),
        (GOOD, ["train/c", "val/c"], r"train/c holds no image \(JPEG, PNG"),
        (GOOD[:3], ["val/b"], "val/b holds no image"),
        ([*GOOD, "train/a/1\n2.jpg"], [], r"train/a/1\\n2.jpg has a control"),
        ([*GOOD, "train/a/\udcff.jpg"], [], r"train/a/\\udcff.jpg has a control or non-UTF-8"),
    ],
)
def test_bad_layout_is_refused_in_one_line(names: list[str], folders: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        find_layout(names, folders, "data=set.tar")
    assert str(caught.value).startswith("data=set.tar: ")
    assert "\n" not in str(caught.value)


@given(
    st.sets(
        st.tuples(
            st.sampled_from(["train", "val"]),
            st.sampled_from("abc"),
            st.text("xyz.- é", min_size=1, max_size=4),
        ),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_any_order_of_files_gives_one_layout_or_one_refusal(
    wanted: set[tuple[str, str, str]], random: object
) -> None:
    names = sorted("/".join(part) for part in wanted)
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    def outcome(given: list[str]) -> Layout | str:
        try:
            return find_layout(given, [], "x")
        except InputError as error:
            return str(error)

    result = outcome(names)
    assert outcome(shuffled) == result
    if not isinstance(result, str):
        taken = (*result.train.values(), *result.test.values())
        assert sorted(taken) == names
