"""What is installed is what stands in the folders: every package, every configuration, no tests."""

import shutil
import subprocess
import tomllib
import zipfile
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOT_SHIPPED = {"tests", "build", "dist"}


def packages_on_disk() -> set[str]:
    folders = {file.parent.relative_to(ROOT) for file in ROOT.glob("*/**/__init__.py")}
    ours = {f for f in folders if f.parts[0] not in NOT_SHIPPED and not f.parts[0].startswith(".")}
    return {".".join(("resetta", *folder.parts)) for folder in ours} | {"resetta"}


def test_the_list_of_packages_is_complete():
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_folder_of_code_is_a_package():
    for room in ("agents", "configs", "cores", "envs", "experiments", "video"):
        for file in (ROOT / room).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), (
                f"{file.parent} has no __init__.py and is not shipped"
            )


def test_the_console_script_is_there():
    module, _, function = PYPROJECT["project"]["scripts"]["resetta"].partition(":")
    assert (ROOT / Path(*module.split(".")[1:])).with_suffix(".py").is_file()
    from resetta.experiments import cli

    assert callable(getattr(cli, function))


def test_configurations_are_found_where_the_package_is():
    folder = resources.files("resetta.configs")
    for name in ("train.yaml", "evaluate.yaml", "core/gru.yaml", "env/plain.yaml"):
        assert folder.joinpath(*name.split("/")).is_file(), f"{name} is not found in resetta.configs"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel that is built from a copy, so that this checkout gets no build folder."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on the path")
    source, out = tmp_path_factory.mktemp("source") / "copy", tmp_path_factory.mktemp("wheel")
    hidden = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "runs", "multirun", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=hidden)
    done = subprocess.run(
        [uv, "build", "--wheel", "-q", "-o", str(out), str(source)], capture_output=True, text=True
    )
    if done.returncode and ("Failed to fetch" in done.stderr or "error sending request" in done.stderr):
        pytest.skip("building needs setuptools from a package index, which is out of reach")
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path).namelist()


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    outside = [n for n in wheel if not n.startswith("resetta/") and ".dist-info/" not in n]
    assert outside == []
    assert [n for n in wheel if "test_" in n or "/tests/" in n] == []


def test_the_wheel_holds_every_module_and_every_data_file(wheel):
    for room in ("agents", "configs", "cores", "envs", "experiments", "video"):
        for file in (ROOT / room).rglob("*"):
            if file.suffix in {".py", ".yaml", ".json"}:
                assert f"resetta/{file.relative_to(ROOT).as_posix()}" in wheel
    for file in ROOT.glob("*.py"):
        assert f"resetta/{file.name}" in wheel


def test_the_wheel_holds_the_licence(wheel):
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
