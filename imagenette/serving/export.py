"""`imagenette export`: a registered model as a file for other programs, once that file gives its answers.

Each format has a writer and a reader: the file is read back, and shown the self-test's pictures, before
anyone gets it.
"""

from __future__ import annotations

import importlib
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from imagenette.errors import InputError, as_line, shown
from imagenette.files import sync_tree
from imagenette.network import models
from imagenette.network.export import Classifier
from imagenette.network.self_test import TOLERANCE
from imagenette.registry import load_known
from imagenette.registry.model import Model, as_input
from imagenette.serving.predict import name_of

Pictures = npt.NDArray[np.float32]
"""[n, 3, size, size], RGB in [0, 1]"""
Shares = npt.NDArray[np.float32]
"""[n, classes]"""
ABOUT, PROOF = "about.json", "proof.safetensors"


@dataclass(frozen=True)
class Format:
    file: str
    write: Callable[[Model, Path], None]
    read: Callable[[Model, Path, Pictures], Shares]
    """The file's own answers; of the model it may use the class count and the network's name."""
    normalizes: bool
    """Whether normalization and softmax are inside."""


@dataclass(frozen=True)
class Exported:
    model: str
    """In words: name, version, run, resolution."""
    folder: Path
    file: str
    pictures: int
    """Of the self-test, which the file was shown."""
    difference: float
    """Of its shares to the model's, at most."""


def export(
    address: str, *, format: str, output: Path | None = None, tracking_uri: str | None = None
) -> Exported:
    """Write the model at that address into a new folder: the file, `about.json` with the classes and all that
    it takes to use it, `proof.safetensors` with pictures and answers to check a program of one's own by.

    InputError where there is no such model, the folder is there, or the model cannot be had in this format.
    """
    kind = FORMATS[format]
    if output:
        _check_new(output)
    model, known = load_known(address, tracking_uri=tracking_uri)
    name = f"{known.name}-{known.version}" if known else Path(address).resolve().name
    folder = output or Path(f"{name}-{format}")
    _check_new(folder)
    pictures = as_input(model.self_test.pictures).contiguous().numpy()
    expected = model.shares(model.self_test.pictures)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".exporting-") as temp:
        made = Path(temp) / "made"
        made.mkdir(mode=0o755)
        try:
            with _quiet():
                kind.write(model, made / kind.file)
                answers = kind.read(model, made / kind.file, pictures)
        except (InputError, ModuleNotFoundError):
            raise
        except Exception as error:  # exporters raise all kinds for a network that they do not take
            cause: BaseException = error
            while cause.__cause__:  # what wraps it speaks of steps and reports
                cause = cause.__cause__
            why = as_line(str(cause).strip().partition("\n")[0], limit=200)
            raise InputError(f"model {shown(address)}: it cannot be had as {format}: {why}") from error
        difference = float(np.abs(answers - expected).max())
        if not difference <= TOLERANCE:
            raise InputError(
                f"model {shown(address)}: as {format} it gives other answers (shares differ by up to "
                f"{difference:.2g}, allowed are {TOLERANCE})"
            )
        about = _about(model, kind) | ({"name": known.name, "version": known.version} if known else {})
        about |= {"run_id": known.run_id} if known else {}
        (made / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        proof = {"pictures": torch.from_numpy(model.self_test.pictures), "shares": torch.from_numpy(expected)}
        save_file(proof, made / PROOF)
        for file in made.iterdir():  # safetensors' are its owner's alone, and these are to be handed out
            file.chmod(0o644)
        sync_tree(made)
        if folder.exists():
            folder.rmdir()
        shutil.move(made, folder)
    said = name_of(model, known, address)
    return Exported(said, folder, kind.file, len(pictures), difference)


def _check_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"output={shown(folder)}: is there already: choose another folder")


def _about(model: Model, kind: Format) -> dict[str, object]:
    net = _classifier(model)
    steps = ["decode to RGB, upright by EXIF", f"squash to {model.side} x {model.side} px (antialiased)"]
    steps += [f"resize to {model.size} x {model.size} px (antialiased)", "divide by 255"]
    return {
        "file": kind.file,
        "classes": model.classes,
        "labels": model.labels,
        "network": model.network,
        "input": f"float32 [n, 3, {model.size}, {model.size}], RGB in [0, 1]",
        "output": "float32 [n, classes], " + ("shares that add up to 1" if kind.normalizes else "logits"),
        "preprocessing": steps if kind.normalizes else [*steps, "subtract mean, divide by std"],
        "mean": net.mean.flatten().tolist(),
        "std": net.std.flatten().tolist(),
        "side": model.side,
        "size": model.size,
    }


def _classifier(model: Model) -> Classifier:
    assert isinstance(model.module, Classifier)
    return model.module


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own housekeeping."""
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _program(model: Model) -> torch.export.ExportedProgram:
    """The graph, for any number of pictures from 1 up."""
    example = torch.zeros(2, 3, model.size, model.size)  # a size of 1 would be taken for a constant
    return torch.export.export(model.module, (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))


def _write_onnx(model: Model, file: Path) -> None:
    for needed in ("onnxscript", "onnxruntime"):  # by torch's exporter, and to read the file back
        importlib.import_module(needed)  # missing, it is said before the work
    torch.onnx.export(
        _program(model),
        (),
        file,
        input_names=["pictures"],
        output_names=["shares"],
        external_data=False,
        verbose=False,
    )


def _read_onnx(model: Model, file: Path, pictures: Pictures) -> Shares:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    single = session.run(["shares"], {"pictures": pictures[:1]})[0]  # a graph made for 2 would refuse 1
    shares: Shares = session.run(["shares"], {"pictures": pictures})[0]
    assert single.shape == (1, len(model.classes))
    return shares


def _write_pt2(model: Model, file: Path) -> None:
    torch.export.save(_program(model), file)


def _read_pt2(model: Model, file: Path, pictures: Pictures) -> Shares:
    graph = torch.export.load(file).module()
    with torch.inference_mode():
        graph(torch.from_numpy(pictures[:1]))
        shares: Shares = graph(torch.from_numpy(pictures)).numpy()
    return shares


def _write_safetensors(model: Model, file: Path) -> None:
    weights = {name: tensor.contiguous() for name, tensor in _classifier(model).net.state_dict().items()}
    save_file(weights, file, metadata={"network": model.network, "classes": json.dumps(model.classes)})


def _read_safetensors(model: Model, file: Path, pictures: Pictures) -> Shares:
    net = models.by_name(model.network, classes=len(model.classes))
    net.load_state_dict(load_file(file))
    net.eval()
    whole = _classifier(model)
    with torch.inference_mode():
        shares: Shares = net((torch.from_numpy(pictures) - whole.mean) / whole.std).softmax(1).numpy()
    return shares


FORMATS = {
    "onnx": Format("model.onnx", _write_onnx, _read_onnx, normalizes=True),
    "pt2": Format("model.pt2", _write_pt2, _read_pt2, normalizes=True),
    "safetensors": Format("model.safetensors", _write_safetensors, _read_safetensors, normalizes=False),
}
