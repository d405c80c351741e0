"""The command line: one line for every error, before anything is made."""

import subprocess
import sys

import pytest

from imagenette.cli import main
from imagenette.config import KNOBS


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
        (["--data", "digits", "--limit", "65", "--drop-last", "false"], "batch_size=64: a batch of 1 image"),
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


def test_a_dead_server_at_the_start_is_one_line(command, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, said = command("train", "--data", "digits", "--output", str(tmp_path / "run"))
    assert code == 1
    assert said.count("\n") == 1
    assert "tracking server http://127.0.0.1:9 does not answer" in said
    assert "offline=true" in said


HELP = """
import sys
sys.argv = ["imagenette", "--help"]
from imagenette.cli import main
try:
    main()
except SystemExit:
    print(sorted({"torch", "mlflow", "numpy", "pydantic"} & set(sys.modules)))
"""


def test_help_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
