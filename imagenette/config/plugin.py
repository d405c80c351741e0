"""One's own networks, augmentations and optimizers: a Python file or module that registers them by name.

A plugin is named by where it is and by its source's SHA-256, `/home/me/parts.py#1a2b3c4d5e6f`: what is
computed depends on the source, so a config's digest holds the hash and not the place. Processes that are
given the name (ranks, a study's trainings) run that very source or end with one line. Imports no torch; a
plugin may.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from imagenette.config.recipes import OPTIMIZERS, Optimizer
from imagenette.errors import InputError, shown

NONE = "none"
_DIGITS = 12  # of the SHA-256
_MODULE = "imagenette_plugin_"
_Part = TypeVar("_Part")


@dataclass
class Plugin:
    """What this process runs: one plugin at a time."""

    hash: str = ""
    file: str = ""
    source: bytes = b""
    parts: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    """The tables and names under which it registered something."""


_current = Plugin()


def pinned(plugin: str) -> str:
    """The plugin's whole name, from a path, a module's name or a whole name, which stays as it is. InputError
    where there is none."""
    if plugin == NONE or "#" in plugin:
        return plugin
    path = _find(plugin)
    where = str(path.resolve()) if _is_file(plugin) else plugin
    return f"{where}#{_hash(_read(path))}"


def hash_of(plugin: str) -> str:
    """The hash in a whole name; `none` for no plugin."""
    return plugin.rpartition("#")[2]


def source_of(plugin: str) -> tuple[Path, bytes]:
    """Where the source of the plugin with this whole name is, and the source. InputError where it is missing,
    or is not the one that the name means any more."""
    where, _, wanted = plugin.rpartition("#")
    path = _find(where)
    source = _read(path)
    if (found := _hash(source)) != wanted:
        raise InputError(f"plugin={shown(plugin)}: {shown(path)} has changed since: its hash is {found}")
    return path, source


def load(plugin: str) -> str:
    """Run a plugin, so that its parts are there by their names; returns its whole name. Names of one that was
    loaded before go. InputError where it is missing, has changed or cannot be run."""
    global _current
    name = pinned(plugin)
    if name == NONE:
        return name
    path, source = source_of(name)
    if hash_of(name) == _current.hash:
        return name
    forget()
    _current = Plugin(file=path.name, source=source)
    where = name.rpartition("#")[0]
    package = "" if _is_file(where) else where.rpartition(".")[0]
    try:
        _run(source, path, _MODULE + hash_of(name), package=package)
    except Exception as error:  # whatever its author's code raises
        forget()
        why = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"plugin={shown(where)}: {shown(' '.join(why.split()))}") from error
    _current.hash = hash_of(name)
    return name


def loaded() -> Plugin | None:
    """The plugin that this process runs."""
    return _current if _current.hash else None


def is_plugin_s(module: str) -> bool:
    """Whether a module of this name is a plugin."""
    return module.startswith(_MODULE)


def register(table: dict[str, _Part], name: str, part: _Part, *, module: str) -> None:
    """Enter a part of that module into its table. InputError where a plugin's has a name that is there."""
    if is_plugin_s(module):
        if name in table:
            raise InputError(f"{name} is there already: choose another name")
        _current.parts.append((table, name))
    table[name] = part


def forget() -> None:
    """The parts of the plugin that is loaded go."""
    global _current
    for table, name in _current.parts:
        table.pop(name, None)
    _current = Plugin()


def optimizer(
    *, lr: float, weight_decay: float, batch_size: int
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function under its own name as an optimizer, with the peak learning rate, weight decay and
    batch size that it has unless they are given.

    The function: (groups, *, lr, momentum, nesterov, bfloat16) to a torch.optim.Optimizer; groups are
    parameter groups with their weight decay; on a GPU lr is a tensor, which must not be read.
    """

    def enter(builder: Callable[..., Any]) -> Callable[..., Any]:
        place = f"{builder.__module__}:{builder.__qualname__}"
        given = Optimizer(builder=place, lr=lr, weight_decay=weight_decay, batch_size=batch_size)
        register(OPTIMIZERS, builder.__name__, given, module=builder.__module__)
        return builder

    return enter


def _is_file(plugin: str) -> bool:
    return plugin.endswith(".py") or "/" in plugin


def _find(where: str) -> Path:
    """The source file; one that is not where it was may lie in the current folder, as on another machine."""
    if _is_file(where):
        for path in (Path(where).expanduser(), Path(Path(where).name)):
            if path.is_file():
                return path
        raise InputError(f"plugin={shown(where)}: there is no such file")
    found = None
    with contextlib.suppress(ImportError, ValueError), _current_folder():
        found = importlib.util.find_spec(where)
    if found is None or not found.origin or not found.origin.endswith(".py"):
        raise InputError(f"plugin={shown(where)}: there is no such module: must be one, or a file NAME.py")
    return Path(found.origin)


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """Modules of the current folder are found, as `python -m` finds them and a console script does not."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"plugin={shown(path)}: {(error.strerror or str(error)).lower()}") from None


def _hash(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()[:_DIGITS]


def _run(source: bytes, path: Path, name: str, *, package: str) -> None:
    """The source as a module of that name, under which its builders are found again. What is run is what was
    hashed: the file itself, or bytecode beside it, may be another by now."""
    module = sys.modules[name] = ModuleType(name)
    module.__file__, module.__package__ = str(path), package
    try:
        with _current_folder():
            exec(compile(source, path, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
