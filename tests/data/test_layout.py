from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagenette.data.layout import find_layout
from imagenette.errors import InputError

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
    assert layout.train == ("train/a/1.jpg", "train/a/10.jpg", "train/a b/2.jpg", "train/b/1.jpg")
    assert layout.test == ("val/a/1.jpg", "val/a b/1.jpg", "val/b/1.jpg")


def test_one_top_folder_is_taken_off() -> None:
    layout = find_layout([f"imagenette2/{name}" for name in GOOD], [], "data=x")
    assert layout == find_layout(GOOD, [], "data=x").__class__(
        "imagenette2/", ("a", "b"), tuple(GOOD[:2]), tuple(GOOD[2:])
    )


def test_test_folder_stands_in_where_there_is_no_val() -> None:
    names = [name.replace("val", "test") for name in GOOD]
    assert find_layout(names, [], "data=x").test == ("test/a/1.jpg", "test/b/1.jpg")
    assert find_layout([*GOOD, "test/c/1.jpg"], [], "data=x").test == ("val/a/1.jpg", "val/b/1.jpg")


def test_folders_within_classes_belong_to_the_class() -> None:
    assert find_layout([*GOOD, "train/a/deep/2.jpg"], [], "x").train[1] == "train/a/deep/2.jpg"


def test_images_outside_class_folders_are_left_out() -> None:
    extra = ["logo.png", "train/overview.png", "docs/a/1.png"]
    assert find_layout([*GOOD, *extra], ["docs"], "x") == find_layout(GOOD, [], "x")


@pytest.mark.parametrize(
    ("names", "folders", "message"),
    [
        ([], [], "no train/"),
        (["a/1.jpg", "b/1.jpg"], [], "no train/"),
        (["x/y/train/a/1.jpg", "x/y/val/a/1.jpg"], [], "no train/"),
        (GOOD[:2], [], "neither val/ nor test/"),
        ([f"{top}/{name}" for top in "pq" for name in GOOD], [], r"train/ is in 2 folders \(p/ q/\)"),
        ([], ["train", "val"], "train/ holds no class folder"),
        (GOOD[:2], ["val"], "val/ holds no class folder"),
        (GOOD[:3], [], "class folder b is in train/ but not in val/"),
        (GOOD[1:], [], "class folder a is in val/ but not in train/"),
        (GOOD, ["train/c", "val/c"], r"train/c holds no image \(jpg jpeg png"),
        (GOOD[:3], ["val/b"], "val/b holds no image"),
        ([*GOOD, "train/a/1\n2.jpg"], [], r"'train/a/1\\n2.jpg' has a control"),
        ([*GOOD, "train/a/\udcff.jpg"], [], r"'train/a/\\udcff.jpg' has a control or non-UTF-8"),
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

    def outcome(given: list[str]) -> object:
        try:
            return find_layout(given, [], "x")
        except InputError as error:
            return str(error)

    result = outcome(names)
    assert outcome(shuffled) == result
    if not isinstance(result, str):
        assert sorted((*result.train, *result.test)) == names  # type: ignore[attr-defined]
