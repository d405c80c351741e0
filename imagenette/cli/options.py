"""Options that several verbs share: every knob as an option, flags that may carry a value."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from imagenette.errors import InputError, shown

WORDS = ("true", "false", "1", "0", "yes", "no")
"""What a flag's value may be."""


class Verb(click.Command):
    """A command whose flags may carry a value, and which may take every knob of config/ as an option.

    knobs: whether it takes them, in the groups that config/ has. without: those that mean something else
    here.
    """

    def __init__(self, *args: Any, knobs: bool = False, without: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._has_knobs, self._without = knobs, without
        self._groups: dict[str, list[click.Parameter]] | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        knobs = [option for options in self._knobs().values() for option in options]
        return [*self.params, *knobs, *self._help(ctx)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = [name for option in self.params if isinstance(option, Flag) for name in option.opts]
        left = super().parse_args(ctx, spell_out(args, flags))
        for name, value in ctx.params.items():  # a file's name in another encoding fits no record and no JSON
            if isinstance(value, str | Path) and any("\ud800" <= letter <= "\udfff" for letter in str(value)):
                raise InputError(f"{name}={shown(value)}: must be UTF-8; rename it, or give a link to it")
        return left

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verb's own options first, then the knobs by group; a group's verbs last."""
        sections: dict[str, list[click.Parameter]] = {
            "Options": [*self.params, *self._help(ctx)],
            **self._knobs(),
        }
        for section, options in sections.items():
            with formatter.section(section):
                formatter.write_dl([record for option in options if (record := option.get_help_record(ctx))])
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)

    def _knobs(self) -> dict[str, list[click.Parameter]]:
        if not self._has_knobs:
            return {}
        if self._groups is None:  # made on first use: `imagenette --help` does without pydantic
            from imagenette.config import GROUPS

            self._groups = {
                group: [_knob_option(name) for name in names if name not in self._without]
                for group, names in GROUPS.items()
            }
        return self._groups

    def _help(self, ctx: click.Context) -> list[click.Parameter]:
        option = self.get_help_option(ctx)
        return [option] if option else []


class VerbGroup(Verb, click.Group):
    """A verb with verbs of its own."""


class NewFile(click.Path):
    """A file to write once the work is done: refused before it where it could not be."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, writable=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        folder = Path(str(path)).parent
        if not folder.is_dir():
            self.fail(f"{shown(folder)}: there is no such folder", param, ctx)
        if not os.access(folder, os.W_OK):
            self.fail(f"{shown(folder)}: no permission to write there", param, ctx)
        return path


BAD_PICTURES = click.option(
    "--bad-pictures",
    type=click.Choice(["refuse", "skip"]),
    default="refuse",
    help="Where pictures cannot be read: stop, or leave them out. [default: refuse]",
)


class Flag(click.Option):
    """On when named, and able to carry a value: `--smoke`, `--smoke true`, `--no-smoke`."""


def flag(name: str, *, help: str, default: bool = False) -> Callable[[Any], Any]:
    """The one form of every yes-or-no option. `mlflow run -P smoke=true` gives it a value."""
    text = f"{help} [default: on]" if default else help
    return click.option(name, cls=Flag, type=bool, default=default, metavar="", help=text)


def spell_out(args: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The arguments with each of these flags as `--flag=value`; hyphens and underscores are the same."""
    spelt: list[str] = []
    waiting = False  # the last one is a flag that may still get its value
    for arg in args:
        name = arg.replace("_", "-")
        if waiting and arg.lower() in WORDS:
            spelt[-1] = f"{spelt[-1].removesuffix('=true')}={arg}"
            waiting = False
        elif name in flags:
            spelt.append(f"{name}=true")
            waiting = True
        elif name.startswith("--no-") and f"--{name[5:]}" in flags:
            spelt.append(f"--{name[5:]}=false")
            waiting = False
        else:
            spelt.append(arg)
            waiting = False
    return spelt


def given(knobs: dict[str, str | None], file: Path | None = None) -> dict[str, Any]:
    """The knobs that stand on the command line, over those of a file."""
    from imagenette.config.file import read_knobs

    kept = read_knobs(file) if file else {}
    return kept | {name: value for name, value in knobs.items() if value is not None}


def _knob_option(name: str) -> click.Option:
    from imagenette.config import RECIPES, Config, OfOptimizer, allowed, canonical

    field = Config.model_fields[name]
    defaults = {"default": field.default} | {r: knobs[name] for r, knobs in RECIPES.items() if name in knobs}

    def words(value: Any) -> str:
        if isinstance(value, OfOptimizer):
            return str(value)
        return "derived" if callable(value) else canonical(value)

    values = [
        f"{recipe}: {words(value)}"
        for recipe, value in defaults.items()
        if recipe == "default" or value != field.default
    ]
    text = " ".join((field.description or "").split())
    help_text = f"{text}  [{'; '.join([allowed(name), *values])}]"
    return click.Option([f"--{name.replace('_', '-')}", name], help=help_text, metavar="VALUE")


def _load_plugin(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value:
        from imagenette.config import plugin

        plugin.load(value)


PLUGIN = click.option(
    "--plugin",
    metavar="FILE|MODULE",
    envvar="IMAGENETTE_PLUGIN",
    expose_value=False,
    callback=_load_plugin,
    help="The plugin that builds the model's network, where one does. [default: IMAGENETTE_PLUGIN's]",
)
