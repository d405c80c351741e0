"""What is written in several places says the same everywhere."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import imagenette
from imagenette.config import KNOBS, RECIPES, Config, canonical, resolve

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MLPROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
LOCKS = ("requirements.lock", "requirements-dev.lock")


def locked(name: str) -> dict[str, set[Version]]:
    """Package -> its versions (more than one where they depend on Python's)."""
    versions: dict[str, set[Version]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if pinned := re.match(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==([^ ;\\]+)", line):
            versions.setdefault(pinned[1].lower().replace("_", "-"), set()).add(Version(pinned[2]))
    return versions


def conda_pins() -> list[Requirement]:
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text())
    pip = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    return [Requirement(line) for line in pip if not line.startswith("-e")]


def test_conda_yaml_pins_what_the_lock_pins():
    lock = locked("requirements.lock")
    pins = conda_pins()
    assert {pin.name for pin in pins} == {"torch", "torchvision", "mlflow", "optuna", "sqlalchemy"}
    for pin in pins:
        assert {str(pin.specifier)} == {f"=={version}" for version in lock[pin.name]}


@pytest.mark.parametrize("name", LOCKS)
def test_locks_satisfy_pyproject_and_each_other(name):
    lock = locked(name)
    extras = ["train", "report", "serve", *["dashboard", "server", "dev"] * ("dev" in name)]
    lines = [line for extra in extras for line in PROJECT["project"]["optional-dependencies"][extra]]
    for requirement in map(Requirement, [*PROJECT["project"]["dependencies"], *lines]):
        if requirement.name == "imagenette":  # another extra of ours
            continue
        found = lock[requirement.name.lower()]
        assert all(requirement.specifier.contains(version) for version in found), requirement
    shared = locked(LOCKS[0])
    assert all(lock[package] == versions for package, versions in shared.items())


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_hashes_and_no_addresses(name):
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert text.count("--hash=sha256:") > len(locked(name))


def test_every_dependency_has_its_reason_beside_it():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for line in lines:
        if re.match(r'^    "[a-z][\w.-]*[<>=~\[]', line):
            assert "  # " in line, line


def test_mlproject_declares_knobs_no_recipe_sets_with_their_defaults():
    parameters = MLPROJECT["entry_points"]["main"]["parameters"]
    governed = {name for recipe in RECIPES.values() for name in recipe}
    for name, declared in parameters.items():
        assert declared["default"] == canonical(Config.model_fields[name].default), name
        assert name not in governed, f"MLflow would hand {name} over as if it had been asked for"
        assert f"--{name.replace('_', '-')} {{{name}}}" in MLPROJECT["entry_points"]["main"]["command"]
    assert {"depth", "data", "recipe", "seed", "nproc"} <= set(parameters)


def test_the_table_in_mlproject_is_the_recipes():
    text = (ROOT / "MLproject").read_text()
    rows = re.findall(r"^#   (\w+) +(\S+) +(\S+) +(\S+) +(\S+)$", text, re.MULTILINE)
    assert len(rows) >= 13
    configs = [resolve({"recipe": recipe}).params() for recipe in ("fast", "record", "paper", "paper-code")]
    for name, *values in rows:
        assert name in KNOBS
        assert values == [params[name] for params in configs], name


def test_a_new_module_has_a_place_in_the_import_contracts_or_is_refused(tmp_path):
    """The linter, on a copy of the package: whole as it is, and with a module that no contract names."""
    shutil.copytree(
        ROOT / "imagenette", tmp_path / "imagenette", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    def lint() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )

    done = lint()
    assert done.returncode == 0, done.stdout
    (tmp_path / "imagenette" / "annex.py").touch()
    done = lint()
    assert done.returncode != 0
    assert "annex" in done.stdout


def test_every_text_file_names_its_encoding():
    """Else the locale decides, and what one machine wrote another cannot read."""
    for file in [path for folder in ("imagenette", "benchmarks") for path in ROOT.glob(f"{folder}/**/*.py")]:
        for call in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name, where = getattr(call.func, "attr", ""), f"{file}:{call.lineno}: {ast.unparse(call)}"
            mode = ast.unparse(call.args[0]) if call.args else "'r'" * (not call.keywords)
            if name in {"read_text", "write_text"} or (name == "open" and re.fullmatch(r"'[rwax]\+?'", mode)):
                assert "utf-8" in where, where
            assert all(word.arg != "text" for word in call.keywords if name in {"run", "Popen"}), where


def test_version_has_a_changelog_entry():
    assert f"## {imagenette.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_no_readme_link_is_dead():
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_nothing_tells_to_install_a_package_that_no_index_has():
    texts = [*ROOT.glob("imagenette/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "Makefile"]
    assert [
        path.name for path in texts if re.search(r"install '?imagenette\b", path.read_text("utf-8"))
    ] == []


def test_the_gpu_campaign_runs_every_file_that_has_a_test_for_a_gpu():
    tests = ROOT / "tests"
    marked = re.compile(r"mark\.gpu\b|from tests\.gpu import")
    others = [file for file in tests.rglob("test_*.py") if file != Path(__file__)]
    files = [file for file in others if marked.search(file.read_text("utf-8"))]
    campaign = (ROOT / "benchmarks/gpu_campaign.py").read_text("utf-8")
    listed = re.search(r"^GPU_TESTS = (\(.*\))$", campaign, re.M)
    places = [ROOT / place for place in ast.literal_eval(listed[1])[2:]]
    assert files
    assert [file for file in files if not any(file.is_relative_to(place) for place in places)] == []


def test_a_bare_machine_gets_all_that_runs_and_tests_need(monkeypatch: pytest.MonkeyPatch):
    """It has torch, and no network: a package that is missing ends the GPU's tests at their first import."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    campaign = importlib.import_module("gpu_campaign")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    pins = campaign.packed(python=here)
    names = {canonicalize_name(pin.partition("==")[0]) for pin in pins}
    assert {"pytest", "hypothesis", "sortedcontainers", "mlflow-skinny"} <= names
    needed = {
        canonicalize_name(need.name): name
        for name in names
        for need in map(Requirement, requires(name) or ())
        if campaign.applies(need, here)
    }
    there = campaign.WITH_TORCH
    assert {need: by for need, by in needed.items() if need not in names and not need.startswith(there)} == {}
