"""The command line: one line for every error, before anything is made."""

import errno
import io
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from imagenette.cli import main, verbs
from imagenette.cli.options import spell_out
from imagenette.config import KNOBS
from imagenette.data import open_dataset
from imagenette.tracking.client import connect
from imagenette.training.job import Result
from tests.data.small_sets import encode, picture


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """command(*arguments) -> (exit code, standard error), run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["imagenette", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--depth", "19"], "depth=19: depth must be one of 18, 34, 50, 101, 152"),
        (["--batch_size", "0"], "batch_size=0: batch_size must be an integer >= 1"),
        (["--batch-size", "7", "--nproc", "2"], "batch_size=7 does not divide over 2 processes"),
        (["--lr", "abc"], "lr=abc: lr must be a number > 0 and <= 100"),
        (["--weight_decay", "-1"], "weight_decay=-1: weight_decay must be a number >= 0 and <= 10"),
        (["--lr", "nan"], "lr=nan: lr must be"),
        (["--epochs", "0"], "epochs=0: epochs must be an integer >= 1"),
        (["--size", "1"], "size=1: size must be an integer >= 32"),
        (["--wieght-decay", "1"], "--wieght-decay"),
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--data", "digits", "--limit", "33", "--drop-last", "false"], "batch_size=32: a batch of 1 image"),
        (["extra"], "extra"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_leaves_nothing(command, tmp_path, arguments, complaint):
    code, said = command("train", *arguments)
    assert code == 2
    assert complaint in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_gets_a_suggestion(command):
    assert "--weight-decay" in command("train", "--wieght-decay", "1")[1]
    assert "train" in command("trian")[1]


def test_hyphens_and_underscores_are_one(command):
    for spelling in ("--label_smoothing", "--label-smoothing"):
        assert "label_smoothing=2" in command("train", spelling, "2")[1]


def test_help_documents_every_knob(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["imagenette", "train", "--help"])
    with pytest.raises(SystemExit):
        main()
    text = capsys.readouterr().out
    for name in KNOBS:
        assert f"--{name.replace('_', '-')}" in text, name
    for words in ("Exit codes", "Optimization:", "paper-code: 0.01", "px", "--resume"):
        assert words in text, words


@pytest.mark.parametrize(
    ("verb", "variables"),
    [
        ("promote", {"RANK": "1"}),
        ("promote", {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}),
        ("train", {"RANK": "1"}),
        ("train", {"RANK": "0", "WORLD_SIZE": "1"}),
    ],
)
def test_a_rank_left_over_in_the_environment_silences_nobody(command, monkeypatch, verb, variables):
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, said = command(verb)
    assert code in (1, 2)
    assert len(said.splitlines()) == 1
    assert ("RANK" if verb == "train" else "does not answer") in said


def test_a_stop_in_the_first_seconds_has_a_result_and_ends_the_run_of_mlflow_run(tmp_path):
    """While modules are imported and data prepared there is nothing to save."""
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    outer = client.create_run("0")
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": client.tracking_uri,
        "MLFLOW_RUN_ID": outer.info.run_id,
    }
    line = [sys.executable, "-c", IN_IMPORTS, "train", "--data", "digits", "--output", str(tmp_path / "run")]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 75, done.stderr
    assert done.stderr.strip() == "imagenette: stopped on request"
    assert Result.read(tmp_path / "run").status == "preempted"
    run = client.get_run(outer.info.run_id)
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "preempted")


IN_IMPORTS = """
import os, signal, sys
from imagenette.training import launch

def prepare(*_, **__):
    os.kill(os.getpid(), signal.SIGUSR1)

launch.prepare = prepare
from imagenette.cli import main
main()
"""


@pytest.mark.parametrize(
    "verb", [["predict", "--csv"], ["evaluate", "--csv"], ["bench", "--json"], ["compare", "--contact-sheet"]]
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(command, tmp_path, verb):
    name, option = verb
    code, said = command(name, option, str(tmp_path / "none" / "file"), *{"compare": "ab"}.get(name, "x"))
    assert code == 2
    assert f"{tmp_path}/none: there is no such folder" in said
    assert said.count("\n") == 1


def test_a_full_disk_is_one_line_whatever_was_written(command, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x.csv")

    monkeypatch.setattr("imagenette.tracking.sync.sync", full)
    assert command("sync", ".") == (1, "imagenette: /data/x.csv: No space left on device\n")


def test_a_dead_server_at_the_start_is_one_line(command, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, said = command("train", "--data", "digits", "--output", str(tmp_path / "run"))
    assert code == 1
    assert said.count("\n") == 1
    assert "tracking server http://127.0.0.1:9 does not answer" in said
    assert "offline=true" in said


HELP = """
import sys
sys.argv = ["imagenette", *sys.argv[1:]]
from imagenette.cli import main
try:
    main()
except SystemExit:
    roots = {name.split(".")[0] for name in sys.modules}
    print(*sorted(roots & {"torch", "mlflow", "optuna", "numpy", "pandas", "matplotlib", "rich", "pydantic"}))
"""


@pytest.mark.parametrize(
    ("arguments", "brought"),
    [([], ""), (["train"], "pydantic"), (["study"], "pydantic"), (["report"], ""), (["serve"], "")],
)
def test_help_imports_nothing_heavy(arguments, brought):
    line = [sys.executable, "-c", HELP, *arguments, "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == brought


FIRST_STEP = """
import os, sys, threading
from imagenette.training.progress import Progress
from imagenette.tracking import runs

runs.connect = lambda uri: threading.Event().wait()  # a server, or an import, that takes for ever

def first_step(*_):
    heavy = {"fastapi", "matplotlib", "mlflow", "optuna", "pandas", "scipy", "sklearn", "sympy", "timm"}
    heavy |= {"torch._dynamo", "torch._inductor"}
    print(*sorted(heavy & set(sys.modules)), flush=True)
    os._exit(0)

Progress.step = first_step
from imagenette.cli import main
main()
"""


def test_the_first_step_waits_for_neither_mlflow_nor_drawing_nor_the_compiler(tmp_path):
    knobs = ["--data", "digits", "--limit", "64", "--optimizer", "adamw", "--output", "out"]
    line = [sys.executable, "-c", FIRST_STEP, "train", *knobs]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_a_run_that_cannot_be_had_ends_the_training_in_one_line(command, tmp_path, monkeypatch):
    """Found out beside the first steps; no run is made, and the same command can be given again."""
    uri = f"sqlite:///{tmp_path}/store.db"
    client = connect(uri)
    gone = client.create_experiment("gone")
    client.delete_experiment(gone)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "gone")
    knobs = ["train", "--data", "digits", "--limit", "64", "--epochs", "100000", "--output", "out"]
    code, said = command(*knobs)
    assert (code, said.count("\n")) == (2, 1)
    assert "experiment 'gone' is deleted: restore it" in said
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "here")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    code, said = command(*knobs)
    assert (code, said.count("\n")) == (1, 1)
    assert f"run {'0' * 32} (MLFLOW_RUN_ID) is not on tracking server" in said
    assert Result.read(tmp_path / "out").status == "untracked"
    assert client.search_runs([gone, "0"]) == []


JPEG = encode(picture(1, (40, 40)))
GOOD = {
    f"{split}/{c}/{i}.jpg": encode(picture(i)) for split in ("train", "val") for c in "ab" for i in range(3)
}


def as_folder(files, path):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def as_tar(files, path, evil=None):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if evil:
            archive.addfile(evil)
    return path


def member(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def huge_header():
    """A JPEG that claims 65,500 x 65,500 pixels: 13 GB once decoded."""
    at = JPEG.index(b"\xff\xc0")
    return JPEG[: at + 5] + (65500).to_bytes(2, "big") * 2 + JPEG[at + 9 :]


def without(part):
    return {name: content for name, content in GOOD.items() if part not in name}


BAD_DATA = {
    "truncated archive": (lambda p: _cut(as_tar(GOOD, p / "x.tar")), "x.tar"),
    "parent folder": (lambda p: as_tar(GOOD, p / "x.tar", member("train/a/../../../evil.jpg", b"0")), ".."),
    "link": (
        lambda p: as_tar(GOOD, p / "x.tar", member("train/a/l.jpg", tarfile.SYMTYPE, "/etc/passwd")),
        "l.jpg",
    ),
    "device": (lambda p: as_tar(GOOD, p / "x.tar", member("train/a/d.jpg", tarfile.CHRTYPE)), "d.jpg"),
    "missing class": (lambda p: as_folder(without("val/b"), p / "x"), "b"),
    "extra class in val": (lambda p: as_folder(GOOD | {"val/c/0.jpg": JPEG}, p / "x"), "c"),
    "empty class": (lambda p: _empty(as_folder(GOOD, p / "x"), "c"), "c"),
    "zero bytes": (lambda p: as_folder(GOOD | {"train/a/z.jpg": b""}, p / "x"), "z.jpg"),
    "text": (lambda p: as_folder(GOOD | {"train/a/t.JPEG": b"hello"}, p / "x"), "t.JPEG"),
    "truncated JPEG": (lambda p: as_folder(GOOD | {"train/a/c.jpg": JPEG[:-200]}, p / "x"), "c.jpg"),
    "bomb": (lambda p: as_folder(GOOD | {"train/a/h.jpg": huge_header()}, p / "x"), "65500"),
    "no train": (lambda p: as_folder(without("train"), p / "x"), "train"),
}


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _empty(folder, name):
    for split in ("train", "val"):
        (folder / split / name).mkdir()
    return folder


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_is_one_line_exit_2_and_leaves_nothing(command, tmp_path, monkeypatch, kind):
    make, named = BAD_DATA[kind]
    source = make(tmp_path)
    monkeypatch.setenv("IMAGENETTE_HOME", str(tmp_path / "home"))
    code, said = command("train", "--data", str(source), "--output", str(tmp_path / "run"))
    assert code == 2, said
    assert len(said.splitlines()) == 1, said
    assert named in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "home").glob("cache/*/*.npy")), "nothing half made"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_user_with_neither_home_nor_name_has_what_mlflow_asks_for():
    code = """
import getpass, os, sys
from pathlib import Path
from imagenette.cli import main
os.setuid(12345)
sys.argv = ["imagenette", "--help"]
try:
    main()
finally:  # root's Python may be closed to that user; main was imported before
    print(Path.home(), getpass.getuser())
"""
    nameless = {"HOME", "LOGNAME", "USER", "LNAME", "USERNAME"}
    env = {name: text for name, text in os.environ.items() if name not in nameless}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.endswith("/ 12345\n"), done.stderr


def test_bad_pictures_are_left_out_where_asked(command, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGENETTE_HOME", str(tmp_path / "home"))
    source = as_folder(GOOD | {"train/a/t.JPEG": b"hello"}, tmp_path / "x")
    code, said = command("data", str(source))
    assert (code, said.count("\n")) == (2, 1)
    assert said.endswith("bad_pictures=skip leaves them out\n")
    code, said = command("data", str(source), "--bad-pictures", "skip")
    assert (code, said.count("\n")) == (0, 1)
    assert "t.JPEG: the content is not an image" in said


def test_every_kind_of_picture_is_read_as_rgb(tmp_path):
    gray, cmyk, rgba = (
        encode(picture(2, mode=m), k) for m, k in (("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"))
    )
    odd = {
        "train/a/gray.jpg": gray,
        "train/a/cmyk.jpg": cmyk,
        "train/b/rgba.png": rgba,
        "train/b/png.JPEG": rgba,
    }
    dataset = open_dataset(as_folder(GOOD | odd, tmp_path / "x"), home=tmp_path / "home")
    assert dataset.train.images.shape[-1] == 3
    names = [name.split("/")[-1] for name in dataset.train.names]
    for name in ("cmyk.jpg", "rgba.png", "png.JPEG"):
        stored = dataset.train.images[names.index(name)].astype(float)
        squashed = np.asarray(picture(2).resize(stored.shape[:2], 2)).astype(float)
        assert np.abs(stored - squashed).mean() < 12, name
    one = dataset.train.images[names.index("gray.jpg")]
    assert (one[..., 0] == one[..., 1]).all()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["study", "weight-decya"], "did you mean weight-decay?"),
        (["study", "weight-decay", "--weight-decay", "1"], "the study varies weight_decay"),
        (["study", "weight-decay", "--seed", "1"], "--seed"),
        (["study", "weight-decay", "--epochs", "0"], "epochs=0: epochs must be an integer >= 1"),
        (["study", "weight-decay", "--workers", "0"], "--workers"),
        (
            ["study", "weight-decay", "--storage", "mysql://x/y"],
            "storage=mysql://x/y: storage must be sqlite:",
        ),
        (["study", "weight-decay", "--label", "a b"], "label=a b"),
        (["study", "weight-decay", "--smoke", "maybe"], "maybe"),
        (["study", "weight-decay", "--smoke", "--bn-group", "-1"], "bn_group=-1"),
        (["study", "weight-decay", "--data", "no/such/folder"], "no/such/folder"),
        (["status", "--storage", "postgresql://me:secret@127.0.0.1:1/x"], "does not answer"),
    ],
)
def test_bad_input_to_studies_is_one_line_and_leaves_nothing(command, tmp_path, arguments, complaint):
    code, said = command(*arguments)
    assert code == (1 if arguments[0] == "status" else 2)
    assert complaint in said
    assert "secret" not in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "spelt"),
    [
        (["--smoke"], ["--smoke=true"]),
        (["--smoke", "false", "x"], ["--smoke=false", "x"]),
        (["--smoke", "x"], ["--smoke=true", "x"]),
        (["--smoke=true", "--dry_run"], ["--smoke=true", "--dry-run=true"]),
        (["--dry-run", "yes", "--smoke"], ["--dry-run=yes", "--smoke=true"]),
        (["--no-smoke", "true"], ["--smoke=false", "true"]),
        (["--lr", "1"], ["--lr", "1"]),
    ],
)
def test_a_flag_may_carry_a_value_as_mlflow_run_gives_it(args, spelt):
    assert spell_out(args, ["--smoke", "--dry-run"]) == spelt


def test_every_yes_or_no_option_is_a_flag():
    pending = [*verbs.commands.values()]
    while pending:
        verb = pending.pop()
        pending += getattr(verb, "commands", {}).values()
        for option in verb.params:
            assert not getattr(option, "is_flag", False), f"{verb.name} {option.name}"


NO_TORCH = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name=name)

sys.meta_path.insert(0, Missing())
sys.argv = ["imagenette", "predict", "a.png"]
from imagenette.cli import main
main()
"""


def test_a_verb_without_its_packages_names_the_extra_that_has_them(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr
        == "imagenette: torch is not installed: pip install '.[train]' in a clone of the project\n"
    )


def test_what_is_read_and_said_is_the_same_in_every_locale(tmp_path):
    folder = as_folder({name.replace("/b/", "/café/"): data for name, data in GOOD.items()}, tmp_path / "x")
    link = tmp_path / os.fsdecode(b"lat\xe9")
    link.symlink_to(folder)
    said = []
    for locale in ({"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        env = os.environ | locale | {"IMAGENETTE_HOME": str(tmp_path / locale["LC_ALL"])}
        for source in (folder, link):
            line = [sys.executable, "-m", "imagenette", "data", source]
            done = subprocess.run(line, capture_output=True, encoding="utf-8", env=env)
            said.append((done.returncode, done.stdout, done.stderr))
    assert said[:2] == said[2:]
    assert "classes: a, café\n" in said[0][1]
    assert said[1][2] == (
        f"imagenette: source={tmp_path}/lat\\udce9: must be UTF-8; rename it, or give a link to it\n"
    )


@pytest.mark.parametrize("option", ["--output", "--data", "--run-name", "--arm"])
def test_text_that_is_not_utf8_is_refused_before_anything_is_made(command, tmp_path, option):
    code, said = command("train", "--limit", "64", option, os.fsdecode(b"lat\xe9"))
    assert (code, list(tmp_path.iterdir())) == (2, [])
    name = option[2:].replace("-", "_")
    assert said == f"imagenette: {name}=lat\\udce9: must be UTF-8; rename it, or give a link to it\n"
