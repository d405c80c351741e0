"""How a registered model is named: `imagenette@champion`, `imagenette/3`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from imagenette.errors import InputError

NAME, CHAMPION, PREVIOUS = "imagenette", "champion", "previous"


@dataclass(frozen=True)
class Address:
    """A registered model's name, and an alias or a version's number."""

    name: str
    alias: str | None = None
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """`NAME@ALIAS`, `NAME/VERSION`, or `NAME` for its champion, each with or without `models:/`."""
        match = re.fullmatch(r"(?:models:/)?([\w.-]+)(?:@([\w.-]+)|/(\d{1,9}))?", text)
        if match is None:
            raise InputError(f"model {text!r}: allowed are NAME@ALIAS and NAME/VERSION, as {NAME}@{CHAMPION}")
        name, alias, version = match.groups()
        if version is not None:
            return cls(name, version=int(version))
        return cls(name, alias=alias or CHAMPION)

    @classmethod
    def of_name(cls, name: str) -> Address:
        """The champion of a registered model. Raises InputError for what is no such name."""
        address = cls.parse(name)
        if str(address) != f"{name}@{CHAMPION}":
            raise InputError(f"registered model {name!r}: letters, digits, `.`, `_` and `-` are allowed")
        return address

    def __str__(self) -> str:
        return f"{self.name}@{self.alias}" if self.version is None else f"{self.name}/{self.version}"
