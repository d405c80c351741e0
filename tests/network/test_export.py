"""Laws of the exported model: it loads without pickle and says what the network says."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow import MlflowClient, pyfunc
from PIL import Image
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


FILES = [encode(picture(i, (90, 120)), "PNG") for i in range(3)]


@pytest.fixture(scope="module")
def loaded(saved: Path) -> Any:
    return pyfunc.load_model(str(saved))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures, one a folder deeper, and what is none."""
    folder = tmp_path_factory.mktemp("pictures")
    names = [folder / "a.png", folder / "b/b.png", folder / "c.png"]
    (folder / "b").mkdir()
    for name, file in zip(names, FILES, strict=True):
        name.write_bytes(file)
    (folder / "notes.txt").write_text("no picture")
    return folder


def paths(folder: Path) -> list[Path]:
    return [folder / "a.png", folder / "b/b.png", folder / "c.png"]


def pixels() -> list[np.ndarray]:
    return [decode(file, "file") for file in FILES]


def texts() -> list[str]:
    return [base64.b64encode(file).decode() for file in FILES]


THREE: dict[str, Callable[[Path], Any]] = {
    "a folder": lambda folder: folder,
    "a folder's name": str,
    "paths": paths,
    "names": lambda folder: [*map(str, paths(folder))],
    "an array of names": lambda folder: np.array([*map(str, paths(folder))]),
    "an array of paths": lambda folder: np.array(paths(folder), dtype=object),
    "PIL": lambda folder: [Image.open(path) for path in paths(folder)],
    "pixels": lambda folder: pixels(),
    "an array of pixels": lambda folder: np.stack(pixels()),
    "bytes": lambda folder: FILES,
    "base64": lambda folder: texts(),
    "base64 in lines": lambda folder: [base64.encodebytes(file).decode() for file in FILES],
    "base64 as in a page": lambda folder: [f"data:image/png;base64,{text}" for text in texts()],
    "a table of paths": lambda folder: pd.DataFrame({"file": [*map(str, paths(folder))]}),
    "a table of bytes": lambda folder: pd.DataFrame({"image": FILES, "label": [1, 2, 3]}),
    "a table of base64": lambda folder: pd.DataFrame({"image": texts()}),
    "a series": lambda folder: pd.Series(texts()),
    "a dictionary": lambda folder: {"image": FILES},
    "a mixture": lambda folder: [folder / "a.png", FILES[1], Image.open(folder / "c.png")],
}


@pytest.mark.parametrize("form", THREE)
def test_as_pyfunc_it_takes_pictures_in_every_form(loaded: Any, folder: Path, form: str) -> None:
    shares = loaded.predict(THREE[form](folder)).to_numpy()
    np.testing.assert_array_equal(shares, loaded.predict(pd.DataFrame({"image": FILES})).to_numpy())


def test_as_pyfunc_it_takes_a_single_picture_in_every_form(loaded: Any, folder: Path) -> None:
    path = folder / "a.png"
    for one in (path, str(path), FILES[0], texts()[0], Image.open(path), pixels()[0], bytearray(FILES[0])):
        shares = loaded.predict(one).to_numpy()
        np.testing.assert_array_equal(shares, loaded.predict(pd.DataFrame({"image": FILES[:1]})).to_numpy())


def test_rows_are_called_as_the_files_or_the_tables_rows(loaded: Any, folder: Path) -> None:
    assert list(loaded.predict(folder).index) == [*map(str, sorted(paths(folder)))]
    table = pd.DataFrame({"image": FILES}, index=["x", "y", "z"])
    assert list(loaded.predict(table).index) == ["x", "y", "z"]
    assert list(loaded.predict(FILES).index) == [0, 1, 2]


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no file": (lambda folder: folder / "d.png", "d.png: no such file or folder"),
    "no picture": (lambda folder: folder / "notes.txt", "notes.txt: the content is not an image"),
    "an empty list": (lambda folder: [], "no picture: allowed are a path, a folder"),
    "floats": (lambda folder: [FILES[0], np.zeros((8, 8, 3))], r"image 2: float64 \[8, 8, 3\] is no picture"),
    "grey pixels": (lambda folder: np.zeros((8, 8), np.uint8), r"image 1: uint8 \[8, 8\] is no picture"),
    "a number": (lambda folder: 7, "image 1: int is no picture"),
    "two columns": (lambda folder: pd.DataFrame({"a": [1], "b": [2]}), "the columns a, b: allowed are"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_no_picture_is_refused_in_one_line(loaded: Any, folder: Path, form: str) -> None:
    make, words = REFUSED[form]
    with pytest.raises(ValueError, match=words) as refusal:
        loaded.predict(make(folder))
    assert "\n" not in str(refusal.value)


def test_clients_of_mlflows_server_cannot_have_its_files_read(
    loaded: Any, folder: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("__pyfunc_model_path__", str(saved))
    assert len(loaded.predict(texts())) == 3
    for name in (str(folder / "a.png"), str(folder), str(folder / "d.png")):
        with pytest.raises(ValueError, match=r"^image 1: neither bytes nor base64$"):
            loaded.predict([name])


def test_its_network_may_be_told_to_evaluate_and_names_the_size_it_takes(loaded: Any, saved: Path) -> None:
    batch = torch.rand(2, 3, SIZE, SIZE)
    network = loaded.get_raw_model()
    with torch.inference_mode():
        said = mlflow.pytorch.load_model(str(saved))(batch)
        for module in (network.eval(), network.train(), network.train(False)):
            torch.testing.assert_close(module(batch), said)
    for other in (torch.rand(2, 3, 32, 32), torch.rand(3, SIZE, SIZE), batch.double()):
        with pytest.raises(ValueError, match=r"allowed are float32 \[n, 3, 64, 64\] in \[0, 1\]$"):
            network(other)


def test_as_pyfunc_it_sees_a_phones_picture_upright(saved: Path) -> None:
    image = picture(1, (90, 120))
    pair = [encode(image, "PNG"), turned(image)]
    upright, phone = pyfunc.load_model(str(saved)).predict(pd.DataFrame({"image": pair})).to_numpy()
    np.testing.assert_array_equal(phone, upright)
    opened = [Image.open(io.BytesIO(file)) for file in pair]
    upright, phone = pyfunc.load_model(str(saved)).predict(opened).to_numpy()
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
    assert described["signature"]["inputs"] is None, "MLflow would refuse every form but one"
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


@pytest.fixture(scope="module")
def champion(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a registry whose `imagenette@champion` is the saved model."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"
    client = MlflowClient(uri)
    client.create_registered_model("imagenette")
    client.create_model_version("imagenette", str(saved))
    client.set_registered_model_alias("imagenette", "champion", "1")
    return uri


@pytest.mark.parametrize("page", ["README.md", "docs/registry.md"])
def test_the_pages_lines_run_as_they_stand(
    champion: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    text = (Path(__file__).parents[2] / page).read_text()
    [lines] = [
        block for block in re.findall(r"(?:^    .*\n|^\n)+", text, re.MULTILINE) if "mlflow.pyfunc" in block
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", champion)
    (tmp_path / "folder").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    *most, last = ast.parse(textwrap.dedent(lines)).body
    names: dict[str, Any] = {}
    exec(compile(ast.Module(most, []), page, "exec"), names)
    if page == "README.md":
        assert isinstance(last, ast.Expr)
        said = eval(compile(ast.Expression(last.value), page, "eval"), names)
        assert set(said) <= set(LABELS)
        assert list(said.index) == ["folder/a.png", "folder/b/b.png", "folder/c.png"]
    else:
        exec(compile(ast.Module([last], []), page, "exec"), names)
        assert names["network"](torch.rand(1, 3, SIZE, SIZE)).shape == (1, 10)


def test_saving_again_replaces_it(saved: Path, tmp_path: Path) -> None:
    tiny = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    path = tmp_path / "model"
    for _ in range(2):
        save_model(tiny, path, classes=["a", "b"], labels=["a", "b"], side=8, size=8, mean=MEAN, std=STD)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
