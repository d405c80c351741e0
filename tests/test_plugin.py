"""Plugins: found by file or module, run once, held to their hash, and gone when another comes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from imagenette.cli import verbs
from imagenette.config import OPTIMIZERS, from_params, plugin, resolve
from imagenette.data.augment import AUGMENTATIONS, amounts, augment
from imagenette.errors import InputError
from imagenette.network import models
from imagenette.study.definition import load
from imagenette.training import optim
from imagenette.training.readiness import check_config

TEMPLATE = Path(__file__).resolve().parents[1] / "docs/plugin/parts.py"
OTHER = """
from imagenette import optimizer

@optimizer(lr=0.5, weight_decay=0, batch_size=8)
def other(**_): ...
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The template, alone in a folder; what it registered is gone afterwards."""
    shutil.copy(TEMPLATE, tmp_path / "parts.py")
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "parts.py"
    plugin.forget()


def test_a_config_names_the_source_and_its_digest_the_hash_alone(parts: Path):
    config = resolve({"plugin": "parts.py", "optimizer": "signs", "augment": "gray=0.2"})
    assert config.plugin.startswith(f"{parts}#")
    assert (config.lr, config.weight_decay, config.batch_size) == (0.002, 0.01, 64), "the plugin's own"
    elsewhere = parts.parent / "elsewhere/mine.py"
    elsewhere.parent.mkdir()
    shutil.copy(parts, elsewhere)
    moved = resolve({"plugin": str(elsewhere), "optimizer": "signs", "augment": "gray=0.2"})
    assert moved.digest() == config.digest()
    elsewhere.write_text(elsewhere.read_text().replace("0.002", "0.003"))
    changed = resolve({"plugin": str(elsewhere), "optimizer": "signs", "augment": "gray=0.2", "lr": 0.002})
    assert changed.digest() != config.digest()
    assert from_params(config.params()) == config, "a run is read where its plugin is not loaded"
    assert resolve({}).digest() == resolve({"plugin": "none", "augment": "none"}).digest()


def test_a_module_is_a_plugin_with_its_package(parts: Path):
    (parts.parent / "mine").mkdir()
    (parts.parent / "mine/__init__.py").touch()
    (parts.parent / "mine/rates.py").write_text("RATE = 0.25\n")
    text = OTHER.replace("import optimizer", "import optimizer\nfrom .rates import RATE").replace(
        "0.5", "RATE"
    )
    (parts.parent / "mine/ours.py").write_text(text)
    config = resolve({"plugin": "mine.ours", "optimizer": "other"})
    assert config.plugin.startswith("mine.ours#")
    assert config.lr == 0.25


def test_each_part_is_there_by_its_name(parts: Path):
    config = resolve({"plugin": "parts.py", "architecture": "four_layers", "augment": "gray=1"})
    check_config(config)
    assert models.is_plugin_s("four_layers")
    assert not models.is_plugin_s("resnet10t")
    net = models.build(18, architecture="four_layers", classes=4, seed=1)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    before = {name: tensor.clone() for name, tensor in net.named_parameters()}
    knobs = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "decay_norm_bias": False}
    optimizer = optim.build(net, "signs", **knobs)
    net(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(before[name], tensor) for name, tensor in net.named_parameters())
    pictures = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    seen = augment(pictures, {"gray": torch.zeros(3, 1, dtype=torch.float64)}, amounts(config))
    assert torch.equal(seen[:, 0], seen[:, 1])


def test_another_plugin_takes_the_place_of_the_first(parts: Path):
    plugin.load("parts.py")
    assert {"signs"} <= set(OPTIMIZERS)
    assert {"gray", "erase"} <= set(AUGMENTATIONS)
    Path("other.py").write_text(OTHER)
    plugin.load("other.py")
    assert set(OPTIMIZERS) == {"sgd", "adamw", "muon", "other"}
    assert set(AUGMENTATIONS) == {"erase"}, "ours stay, though the template's import may have brought them in"
    plugin.load("parts.py")
    assert "signs" in OPTIMIZERS


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"plugin": "gone.py"}, r"plugin=gone\.py: there is no such file"),
        (
            {"plugin": "gone.module"},
            r"plugin=gone\.module: there is no such module: must be one, or a file NAME\.py",
        ),
        (
            {"plugin": "parts.py#0123456789ab"},
            r"plugin=parts\.py#0123456789ab: parts\.py has changed since: .*",
        ),
        ({"plugin": "broken.py"}, r"plugin=/.*/broken\.py: NameError: name 'nothing' is not defined"),
        ({"plugin": "taken.py"}, r"plugin=/.*/taken\.py: sgd is there already: choose another name"),
        (
            {"plugin": "parts.py", "optimizer": "sings"},
            "optimizer=sings: optimizer must be one of sgd, .*, signs",
        ),
        ({"optimizer": "signs"}, "optimizer=signs: optimizer must be one of sgd, adamw, muon, or a plugin's"),
        ({"augment": "gray"}, "augment=gray: augment must be none, or NAME=AMOUNT,..."),
    ],
)
def test_what_cannot_be_had_is_one_line(parts: Path, given: dict[str, str], line: str):
    Path("broken.py").write_text("nothing\n")
    Path("taken.py").write_text(OTHER.replace("def other", "def sgd"))
    with pytest.raises(InputError, match=f"^{line}$"):
        resolve(given)
    assert "signs" not in OPTIMIZERS or given["plugin"] == "parts.py"


def test_an_augmentation_that_the_plugin_lacks_is_refused_before_anything_is_made(parts: Path):
    for given, has in (({"plugin": "parts.py"}, "gray"), ({}, "none")):
        plugin.forget()
        with pytest.raises(
            InputError, match=f"augment=erase=0.5: the plugin has no erase; its augmentations: {has}$"
        ):
            check_config(resolve(given | {"augment": "erase=0.5"}))


def test_a_plugin_that_changed_after_a_config_was_made_is_refused(parts: Path):
    config = resolve({"plugin": "parts.py"})
    parts.write_text(parts.read_text() + "\n")
    with pytest.raises(InputError, match=r"parts\.py has changed since: its hash is [0-9a-f]{12}$"):
        check_config(config)
    parts.unlink()
    with pytest.raises(InputError, match=r"parts\.py: there is no such file$"):
        check_config(config)


def test_a_study_varies_a_plugin_s_parts(parts: Path):
    study = 'name = "mine"\ntitle = "Mine"\nseeds = [1]\nbase = {data = "digits", plugin = "parts.py"}\n'
    Path("mine.toml").write_text(study + 'grid = {optimizer = ["sgd", "signs"]}\n')
    definition = load("mine.toml")
    assert [config.lr for config in definition.configs()] == [0.1, 0.002]
    Path("mine.toml").write_text(study + 'grid = {optimizer = ["sgd", "sings"]}\n')
    with pytest.raises(InputError, match=r"grid\.optimizer=sings: optimizer must be one of"):
        load("mine.toml")


@pytest.mark.parametrize("by", ["option", "variable"])
def test_the_verbs_of_models_load_it(parts: Path, by: str, monkeypatch: pytest.MonkeyPatch):
    given = ["--plugin", "gone.py"] if by == "option" else []
    if by == "variable":
        monkeypatch.setenv("IMAGENETTE_PLUGIN", "gone.py")
    for verb in (["promote"], ["rollback"], ["predict", "a.png"], ["evaluate"], ["export"], ["serve"]):
        with pytest.raises(InputError, match=r"plugin=gone\.py: there is no such file"):
            verbs.main([*verb, *given], standalone_mode=False)
