"""Which of a source's files make the data set: `train/CLASS/...` and `val/CLASS/...`. Names only."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from imagenette.data.images import SUFFIXES
from imagenette.errors import InputError


@dataclass(frozen=True)
class Layout:
    top: str
    """What stands before `train/` in the source: empty, or one folder with its slash."""
    classes: tuple[str, ...]
    """Sorted."""
    train: tuple[str, ...]
    """Names without `top`, sorted by class, then by file."""
    test: tuple[str, ...]
    """The same, from `val/`, or from `test/` where there is no `val/`."""


def find_layout(images: Iterable[str], folders: Iterable[str], source: str) -> Layout:
    """Sort a source's image files into two splits over the same classes.

    `images` and `folders` are relative paths with forward slashes; `source` begins each message.
    Raises InputError where a split or class is missing or empty: labels are positions in the sorted
    class folders, so a folder missing from one split alone would shift every label behind it.
    """
    images = list(images)
    known = {parent for name in images for parent in parents(name)} | set(folders)
    top = _find_top(known, source)
    test = next((split for split in ("val", "test") if top + split in known), None)
    if test is None:
        raise InputError(f"{source}: {top}train/ has neither val/ nor test/ beside it")
    splits = {split: _names_by_class(images, known, top, split) for split in ("train", test)}
    for split, names in splits.items():
        if not names:
            raise InputError(f"{source}: {top}{split}/ holds no class folder")
    for here, there in (("train", test), (test, "train")):
        for name in sorted(splits[here]):
            if name not in splits[there]:
                raise InputError(f"{source}: class folder {shown(name)} is in {here}/ but not in {there}/")
            if not splits[here][name]:
                allowed = " ".join(suffix[1:] for suffix in SUFFIXES)
                raise InputError(f"{source}: {here}/{shown(name)} holds no image ({allowed})")
    classes = tuple(sorted(splits["train"]))
    train, tests = (
        tuple(name for each in classes for name in sorted(splits[split][each])) for split in ("train", test)
    )
    for name in (*train, *tests):
        # Names travel into JSON, tables and MLflow, none of which takes lone surrogates or line breaks.
        if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in name):
            raise InputError(f"{source}: {shown(name)} has a control or non-UTF-8 character in its name")
    return Layout(top, classes, train, tests)


def parents(name: str) -> list[str]:
    """The folders above a path: `a/b/c` gives `a` and `a/b`."""
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def shown(name: str) -> str:
    """A name fit for a one-line message."""
    return name if name.isprintable() else ascii(name)


def _find_top(folders: set[str], source: str) -> str:
    if "train" in folders:
        return ""
    tops = sorted(name.removesuffix("train") for name in folders if name.split("/")[1:] == ["train"])
    if not tops:
        raise InputError(
            f"{source}: no train/ at its top or in a folder there; needed: train/CLASS/IMAGE, val/CLASS/IMAGE"
        )
    if len(tops) > 1:
        raise InputError(
            f"{source}: train/ is in {len(tops)} folders ({shown(' '.join(tops))}); one is allowed"
        )
    return tops[0]


def _names_by_class(images: list[str], folders: set[str], top: str, split: str) -> dict[str, list[str]]:
    prefix = f"{top}{split}/"
    names: dict[str, list[str]] = {
        name.removeprefix(prefix): []
        for name in folders
        if name.startswith(prefix) and "/" not in name.removeprefix(prefix)
    }
    for name in images:
        label, slash, _ = name.removeprefix(prefix).partition("/")
        if name.startswith(prefix) and slash:  # images beside the class folders belong to no class
            names[label].append(name.removeprefix(top))
    return names
