"""The best models: promoted with their evidence, looked up by name, loaded ready for use.

Owns which run becomes a version, which version is champion, and the way back from a version to its run. Never
imports training or study.

from imagenette.registry import load
model = load("imagenette@champion")
shares = model.shares(model.preprocess(Path("a.jpg").read_bytes())[None])    # [1, classes]
print(dict(zip(model.labels, shares[0])))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imagenette.errors import InputError
from imagenette.registry.lineage import Lineage, lineage, look_up
from imagenette.registry.listing import Listed, registered
from imagenette.registry.promote import Promotion, promote, rollback
from imagenette.tracking.address import CHAMPION, NAME, Address
from imagenette.tracking.client import opened
from imagenette.tracking.fetch import fetched

if TYPE_CHECKING:
    from imagenette.registry.model import Model

__all__ = ["Lineage", "Listed", "Promotion", "lineage", "load", "promote", "registered", "rollback"]


def load(address: str = f"{NAME}@{CHAMPION}", *, tracking_uri: str | None = None) -> Model:
    """The model's module, classes and preprocessing, once its self-test gives training's answers.

    address: `NAME@ALIAS`, `NAME/VERSION`, or the folder of a saved model. Nothing is unpickled. Raises
    InputError if there is no such model or it is not what it should be, RunError if the server is dead.
    """
    return load_known(address, tracking_uri=tracking_uri)[0]


def load_known(
    address: str = f"{NAME}@{CHAMPION}", *, tracking_uri: str | None = None
) -> tuple[Model, Lineage | None]:
    """The same, with where it comes from; None for a folder."""
    from imagenette.registry.model import NEEDED, open_folder

    folder = Path(address)
    if is_model_folder(address):
        try:
            return open_folder(folder), None
        except InputError as error:
            raise InputError(f"model {address}: {error}") from None
    parsed = Address.parse(address)
    with opened(tracking_uri) as client:
        known = look_up(client, parsed)
        try:
            with fetched(client, known.source, only=NEEDED) as files:
                return open_folder(files), known
        except InputError as error:
            raise InputError(f"model {parsed}, version {known.version}: {error}") from None


def is_model_folder(address: str) -> bool:
    """Whether the address is a saved model's folder rather than a registered model's name."""
    try:
        return (Path(address) / "MLmodel").is_file()
    except (OSError, ValueError):  # too long for a path, or a null byte in it
        return False
