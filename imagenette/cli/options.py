"""Options that several verbs share: every knob as an option, flags that may carry a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


class KnobCommand(click.Command):
    """A command that takes every knob of config.py as an option, in the groups of that file, but those that
    mean something else `without`."""

    def __init__(self, *args: Any, without: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._without = without
        self._knobs: dict[str, list[click.Parameter]] | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from imagenette.config import GROUPS

        if self._knobs is None:  # made on first use: `imagenette --help` does without pydantic
            self._knobs = {
                group: [_knob_option(name) for name in names if name not in self._without]
                for group, names in GROUPS.items()
            }
        knobs = [option for options in self._knobs.values() for option in options]
        return [*self.params, *knobs, *self._help(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.get_params(ctx)
        assert self._knobs is not None
        own = [*self.params, *self._help(ctx)]
        groups: list[tuple[str, list[click.Parameter]]] = [*self._knobs.items(), ("This run", own)]
        for group, options in groups:
            records = [record for option in options if (record := option.get_help_record(ctx))]
            with formatter.section(group):
                formatter.write_dl(records)

    def _help(self, ctx: click.Context) -> list[click.Parameter]:
        option = self.get_help_option(ctx)
        return [option] if option else []


def _knob_option(name: str) -> click.Option:
    from imagenette.config import RECIPES, Config, allowed, canonical

    field = Config.model_fields[name]
    text = " ".join((field.description or "").split())
    defaults = {"default": field.default} | {
        r: values[name] for r, values in RECIPES.items() if name in values
    }
    told = [
        f"{recipe}: {'derived' if callable(value) else canonical(value)}"
        for recipe, value in defaults.items()
        if recipe == "default" or value != field.default
    ]
    help_text = f"{text}  [{'; '.join([allowed(name), *told])}]"
    return click.Option([f"--{name.replace('_', '-')}", name], help=help_text, metavar="VALUE")


class Flag(click.Option):
    """On when named, and able to say so: `--smoke`, `--smoke true`, as `mlflow run -P smoke=true` says it."""

    WORDS = ("true", "false", "1", "0", "yes", "no")

    @classmethod
    def spell_out(cls, args: list[str], names: Sequence[str]) -> list[str]:
        """The arguments with each of these flags as `--flag=value`."""
        said: list[str] = []
        for arg in args:
            if said and said[-1] in names and arg.lower() in cls.WORDS:
                said[-1] += f"={arg}"
            else:
                said.append(arg)
        return [f"{arg}=true" if arg in names else arg for arg in said]


class FlagCommand(click.Command):
    """Flags may carry a value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = [name for option in self.params if isinstance(option, Flag) for name in option.opts]
        names += [name.replace("-", "_") for name in names]
        return super().parse_args(ctx, Flag.spell_out(args, [n.replace("__", "--", 1) for n in names]))


class StudyCommand(FlagCommand, KnobCommand):
    """Knobs override the study's base."""


def said(knobs: dict[str, str | None]) -> dict[str, str]:
    """The knobs that were named."""
    return {name: value for name, value in knobs.items() if value is not None}
