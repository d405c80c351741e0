"""Which of a source's files make the data set: `train/CLASS/...` and `val/CLASS/...`, or `CLASS/...` alone,
of which a part becomes the test set. Names only.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from imagenette.data.images import FORMATS
from imagenette.errors import InputError, shown

TEST = ("val", "valid", "validation")
"""What the test set's folder may be called; `test` where none of them is there."""
TEST_SHARE = 0.2
"""Of each class's pictures, where no folder holds the test set."""


@dataclass(frozen=True)
class Layout:
    inside: tuple[str, ...]
    """What stands before the class folders in the source: `imagenette2/train/` and `imagenette2/val/`."""
    classes: tuple[str, ...]
    """Sorted."""
    train: dict[str, str]
    """`train/CLASS/FILE` -> the source's own name, sorted by class, then by file."""
    test: dict[str, str]
    split: str = ""
    """How the test set was made, in one line, where the source has none."""


def find_layout(images: Iterable[str], folders: Iterable[str], source: str) -> Layout:
    """Sort a source's image files into two splits over the same classes.

    `images` and `folders` are relative paths with forward slashes; `source` begins each message.
    Raises InputError where a split or class is missing or empty: labels are positions in the sorted
    class folders, so a folder missing from one split alone would shift every label behind it.
    A class that the splits spell in two Unicode forms (macOS writes é as two letters) has the composed one.
    """
    images = list(images)
    known = {parent for name in images for parent in parents(name)} | set(folders)
    top = _find_top(known, source)
    if top is None or (test_folder := _find_test(known, top, source)) is None:
        return _without_test(
            images, known, _find_flat(images, source) if top is None else f"{top}train/", source
        )
    halves = ("train", test_folder)
    train, test = (_by_class(images, known, f"{top}{half}/", source) for half in halves)
    for here, there, names, others in ((*halves, train, test), (*halves[::-1], test, train)):
        missing = [shown(names[key][0]) for key in sorted(names.keys() - others.keys())]
        if missing:
            which = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            are = f"class folder {which} is" if len(missing) == 1 else f"class folders {which} are"
            advice = f"each class needs pictures in both: add to {there}/ or take out of {here}/"
            raise InputError(f"{source}: {are} in {here}/ but not in {there}/; {advice}")
    _check_classes(train, source)
    spelled = {key: label if label == test[key][0] else key for key, (label, _) in train.items()}
    named: list[dict[str, str]] = []
    for half, by_class in zip(halves, (train, test), strict=True):
        named.append({})
        for key in sorted(by_class, key=spelled.__getitem__):
            label, files = by_class[key]
            if not files:
                raise InputError(f"{source}: {half}/{shown(label)} holds no image ({FORMATS})")
            named[-1] |= {
                f"{half}/{spelled[key]}/{file}": f"{top}{half}/{label}/{file}" for file in sorted(files)
            }
    _check_names((*named[0], *named[1]), source)
    inside = tuple(f"{top}{half}/" for half in halves)
    return Layout(inside, tuple(sorted(spelled.values())), named[0], named[1])


def _without_test(images: list[str], folders: set[str], prefix: str, source: str) -> Layout:
    """A part of each class's pictures is the test set, by their names alone: a picture stays in its half when
    others come."""
    by_class = {label: files for label, files in _by_class(images, folders, prefix, source).values() if files}
    _check_classes(by_class, source)
    halves: dict[str, dict[str, str]] = {"train": {}, "val": {}}
    for label, files in sorted(by_class.items()):
        if len(files) == 1:
            raise InputError(
                f"{source}: {prefix}{shown(label)} holds one picture; without val/ each class needs two"
            )
        drawn = {file: _drawn(f"{label}/{file}") for file in files}
        first, last = min(files, key=drawn.__getitem__), max(files, key=drawn.__getitem__)
        for file in sorted(files):
            tested = file == first or (drawn[file] < TEST_SHARE and file != last)
            half = "val" if tested else "train"
            halves[half][f"{half}/{label}/{file}"] = f"{prefix}{label}/{file}"
    train, test = halves.values()
    _check_names((*train, *test), source)
    pictures = len(train) + len(test)
    split = (
        f"no val/: {len(test)} of {pictures} pictures, about {TEST_SHARE:.0%} of each class, are the test "
        "set, chosen by their names"
    )
    return Layout((prefix,), tuple(sorted(by_class)), train, test, split)


def _drawn(name: str) -> float:
    """A number in [0, 1) that is the name's own."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:6]) / 2**48


def _check_classes(classes: Collection[str], source: str) -> None:
    if len(classes) == 1:
        raise InputError(
            f"{source}: {shown(*classes)} is the only class, so nothing can be learned; two or more are "
            "needed"
        )


def _check_names(names: Iterable[str], source: str) -> None:
    for name in names:
        # Names travel into JSON, tables and MLflow, none of which takes lone surrogates or line breaks.
        if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in name):
            raise InputError(f"{source}: {shown(name)} has a control or non-UTF-8 character in its name")


def passed_over(layout: Layout, images: Iterable[str], others: Iterable[str], system: Iterable[str]) -> str:
    """What may have been meant to be in the data set and is not, in one line; empty where nothing."""
    inside = layout.inside
    taken = {*layout.train.values(), *layout.test.values()}
    halves = " and ".join(folder.split("/")[-2] + "/" for folder in inside if folder)
    outside = f"pictures outside the class folders{f' of {halves}' if halves else ''}"
    groups = {
        outside: [n for n in images if n not in taken],
        f"no pictures ({FORMATS})": [n for n in others if n.startswith(inside)],
        "hidden or system entries": [n for n in system if n.startswith(inside)],
    }
    return "; ".join(
        f"{what}: {len(names)}, such as {shown(min(names))}" for what, names in groups.items() if names
    )


def parents(name: str) -> list[str]:
    """The folders above a path: `a/b/c` gives `a` and `a/b`."""
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _find_top(folders: set[str], source: str) -> str | None:
    """What stands before `train/`: empty, or one folder with its slash; None where there is none."""
    if "train" in folders:
        return ""
    tops = sorted(name.removesuffix("train") for name in folders if name.split("/")[1:] == ["train"])
    if not tops:
        return None
    if len(tops) > 1:
        raise InputError(
            f"{source}: train/ is in {len(tops)} folders ({shown(' '.join(tops))}); one is allowed"
        )
    return tops[0]


def _find_flat(images: list[str], source: str) -> str:
    """What stands before the class folders of a source without `train/`: empty, or one folder with its slash.
    InputError where what is there may be something else."""
    places = [name.split("/") for name in images]
    tops = {place[0] for place in places if len(place) > 1}
    prefix, names = "", set(tops)
    if len(tops) == 1 and all(len(place) > 2 for place in places):
        prefix = f"{tops.pop()}/"
        tops = {place[1] for place in places}
        names |= tops
    if len(tops) < 2 or {name.lower() for name in names} & {*TEST, "test", "train"}:
        raise InputError(
            f"{source}: no train/ at its top or in a folder there; needed: train/CLASS/IMAGE, "
            "val/CLASS/IMAGE, or CLASS/IMAGE alone"
        )
    return prefix


def _find_test(folders: set[str], top: str, source: str) -> str | None:
    """The test set's folder; None where there is none."""
    there = [name for name in TEST if top + name in folders] or [n for n in ("test",) if top + n in folders]
    if not there:
        return None
    if len(there) > 1:
        raise InputError(
            f"{source}: {top}{'/ and '.join(there)}/ are both there; one is allowed, the test set"
        )
    return there[0]


def _by_class(
    images: list[str], folders: set[str], prefix: str, source: str
) -> dict[str, tuple[str, list[str]]]:
    """A class folder's name in composed form -> its name as it is, and the files below it."""
    inside = (name.removeprefix(prefix) for name in folders if name.startswith(prefix))
    files: dict[str, list[str]] = {name: [] for name in inside if "/" not in name}
    if not files:
        raise InputError(f"{source}: {prefix} holds no class folder")
    for name in images:
        label, slash, file = name.removeprefix(prefix).partition("/")
        if name.startswith(prefix) and slash:
            files[label].append(file)
    by_class: dict[str, tuple[str, list[str]]] = {}
    for label in sorted(files):
        key = unicodedata.normalize("NFC", label)
        if key in by_class:
            raise InputError(
                f"{source}: {prefix} holds {shown(key)} in two Unicode forms: join the two folders"
            )
        by_class[key] = label, files[label]
    return by_class
