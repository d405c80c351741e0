"""Laws of the exported model: it loads without pickle and says what the network says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow import pyfunc
from safetensors.torch import load_file
from torch import nn
from torchvision.models import resnet18

from imagenette.data.images import decode
from imagenette.data.prepare import resize
from imagenette.network.export import CODE, save_model
from tests.data.small_sets import encode, picture, turned

CLASSES = [f"n{number:02d}" for number in range(10)]
LABELS = [f"thing {number}" for number in range(10)]
MEAN, STD = (0.4625, 0.4580, 0.4295), (0.2452, 0.2390, 0.2469)
SIDE, SIZE = 80, 64


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """As it comes out of training: channels-last, in training mode, with gradients."""
    torch.manual_seed(0)
    net = resnet18(num_classes=10).to(memory_format=torch.channels_last)
    net.train()(torch.rand(8, 3, SIZE, SIZE)).sum().backward()
    return net


@pytest.fixture(scope="module")
def saved(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model"
    return save_model(
        net,
        path,
        classes=CLASSES,
        labels=LABELS,
        side=SIDE,
        size=SIZE,
        mean=MEAN,
        std=STD,
        metadata={"depth": "18"},
    )


def shares_of(net: nn.Module, pictures: np.ndarray) -> np.ndarray:
    """What the network itself says, normalization done by hand."""
    mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (MEAN, STD))
    training = net.training
    with torch.no_grad():
        logits = net.eval()(torch.from_numpy((pictures - mean) / std))
    net.train(training)
    return logits.softmax(dim=1).numpy()


@pytest.mark.parametrize("count", [1, 5])
def test_its_graph_says_what_the_network_says_without_unpickling(
    net: nn.Module, saved: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    pictures = np.random.default_rng(0).random((count, 3, SIZE, SIZE), dtype=np.float32)
    with torch.inference_mode():
        shares = mlflow.pytorch.load_model(str(saved))(torch.from_numpy(pictures)).numpy()
    assert shares.shape == (count, 10)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(shares, shares_of(net, pictures), atol=1e-5)


@pytest.mark.parametrize("count", [1, 5])
def test_as_pyfunc_it_takes_files_as_bytes_and_says_the_same(
    net: nn.Module, saved: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    files = [encode(picture(i, (90, 120))) for i in range(count)]
    loaded = pyfunc.load_model(str(saved))
    shares = loaded.predict(pd.DataFrame({"image": files}))
    assert list(shares.columns) == LABELS
    seen = [resize(torch.from_numpy(decode(file, "file", SIDE)), SIZE) for file in files]
    pictures = np.stack(seen).transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.testing.assert_allclose(shares.to_numpy(), shares_of(net, pictures), atol=1e-5)
    with pytest.raises(Exception, match="image 2: the content is not an image"):
        loaded.predict(pd.DataFrame({"image": [files[0], b"no picture"]}))


def test_as_pyfunc_it_sees_a_phones_picture_upright(saved: Path) -> None:
    image = picture(1, (90, 120))
    pair = [encode(image, "PNG"), turned(image)]
    upright, phone = pyfunc.load_model(str(saved)).predict(pd.DataFrame({"image": pair})).to_numpy()
    np.testing.assert_array_equal(phone, upright)


def test_saving_leaves_the_network_as_it_was(net: nn.Module, saved: Path) -> None:
    assert net.training
    assert net.conv1.weight.requires_grad
    assert net.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_weights_beside_it_load_into_a_fresh_network(net: nn.Module, saved: Path) -> None:
    fresh = resnet18(num_classes=10)
    fresh.load_state_dict(load_file(saved / "weights.safetensors"))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name


def test_it_describes_itself(saved: Path) -> None:
    described = yaml.safe_load((saved / "MLmodel").read_text())
    assert described["metadata"]["classes"] == CLASSES
    assert described["metadata"]["labels"] == LABELS
    assert described["metadata"]["depth"] == "18"
    assert described["metadata"]["mean"] == pytest.approx(MEAN)
    assert json.loads(described["signature"]["inputs"]) == [
        {"type": "binary", "name": "image", "required": True}
    ]
    assert [column["name"] for column in json.loads(described["signature"]["outputs"])] == LABELS
    assert (described["metadata"]["side"], described["metadata"]["size"]) == (SIDE, SIZE)
    assert described["model_size_bytes"] > (saved / "data/model.pt2").stat().st_size
    requirements = (saved / "requirements.txt").read_text()
    assert f"torch=={torch.__version__.split('+')[0]}" in requirements
    assert "+cu" not in requirements


def test_it_loads_where_none_of_our_code_is(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    for name in [name for name in sys.modules if name.split(".")[0] == "imagenette"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.split(".")[0] == CODE]:
        monkeypatch.delitem(sys.modules, name)
    loaded = pyfunc.load_model(str(saved))
    assert loaded.predict(loaded.input_example).shape == (1, 10)


def test_saving_again_replaces_it(saved: Path, tmp_path: Path) -> None:
    tiny = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    path = tmp_path / "model"
    for _ in range(2):
        save_model(tiny, path, classes=["a", "b"], labels=["a", "b"], side=8, size=8, mean=MEAN, std=STD)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
