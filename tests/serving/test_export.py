"""Exported files answer as the model does, in other programs; what cannot be had is one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from imagenette.config import plugin
from imagenette.errors import InputError
from imagenette.network import models
from imagenette.network.export import Classifier, save_model
from imagenette.network.self_test import SelfTest
from imagenette.records import Predictions
from imagenette.registry.model import open_folder
from imagenette.serving.export import FORMATS, export

SIZE, CLASSES = 32, ("cat", "dog", "owl")
PICTURES = np.random.default_rng(5).integers(0, 256, (100, SIZE, SIZE, 3), dtype=np.uint8)
BESSEL = """
import torch
from timm.models import register_model
from torch import nn

class Bessel(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, x):
        return self.head(torch.special.bessel_j1(x.mean((2, 3))))

@register_model
def bessel(pretrained=False, *, num_classes=1000, **others):
    return Bessel(num_classes)
"""


def saved(folder: Path, network: str) -> Path:
    """A model folder of that network, its weights and statistics away from where they begin."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net = models.by_name(network, classes=len(CLASSES)).train()
        for _ in range(3):
            net(torch.randn(8, 3, SIZE, SIZE))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    with torch.inference_mode():
        pixels = torch.from_numpy(PICTURES).permute(0, 3, 1, 2).float() / 255
        shares = Classifier(net.eval(), mean, std)(pixels).numpy()
    answers = Predictions(shares.argmax(1), shares.argmax(1), shares.max(1))
    test = SelfTest.sample([f"{i}.png" for i in range(len(PICTURES))], PICTURES, answers)
    about = {"classes": CLASSES, "labels": CLASSES, "side": 40, "size": SIZE, "mean": mean, "std": std}
    return save_model(net, folder, architecture=network, self_test=test, **about)


@pytest.fixture(scope="module", params=["resnet18", "xresnet18-silu"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "selected", request.param)


def answers_of(folder: Path, about: dict) -> np.ndarray:
    """Shares [100, classes] by a program that has the exported folder alone."""
    pixels = torch.from_numpy(PICTURES).permute(0, 3, 1, 2).float().div(255).contiguous()
    if about["file"].endswith(".onnx"):
        return onnxruntime.InferenceSession(folder / about["file"]).run(None, {"pictures": pixels.numpy()})[0]
    if about["file"].endswith(".pt2"):
        return torch.export.load(folder / about["file"]).module()(pixels).detach().numpy()
    net = models.by_name(about["network"], classes=len(about["classes"])).eval()
    net.load_state_dict(load_file(folder / about["file"]))
    mean, std = (torch.tensor(about[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        return net((pixels - mean) / std).softmax(1).numpy()


@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_file_gives_the_model_s_answers(model: Path, tmp_path: Path, format: str):
    done = export(str(model), format=format, output=tmp_path / "new" / format)
    assert done.difference <= 1e-4
    about = json.loads((done.folder / "about.json").read_text())
    assert (about["classes"], about["side"], about["size"]) == (list(CLASSES), 40, SIZE)
    expected = open_folder(model).shares(PICTURES)
    assert np.abs(answers_of(done.folder, about) - expected).max() <= 1e-4
    proof = load_file(done.folder / "proof.safetensors")
    assert (
        np.abs(open_folder(model).shares(proof["pictures"].numpy()) - proof["shares"].numpy()).max() <= 1e-6
    )
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in done.folder.iterdir())
    assert sorted(path.name for path in done.folder.parent.iterdir()) == [format], "nothing is left beside it"
    with pytest.raises(InputError, match="is there already: choose another folder"):
        export(str(model), format=format, output=done.folder)


def test_what_a_format_does_not_know_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("parts.py").write_text(BESSEL)
    plugin.load("parts.py")
    try:
        saved(tmp_path / "selected", "timm/bessel")
        assert export("selected", format="pt2").difference <= 1e-4
        with pytest.raises(InputError, match=r"^model selected: it cannot be had as onnx: [^\n]+$") as error:
            export("selected", format="onnx")
    finally:
        plugin.forget()
    assert "bessel" in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.py", "selected", "selected-pt2"]
