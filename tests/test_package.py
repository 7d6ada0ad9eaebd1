"""What `pip install .` installs: everything that the packages read, and a command that works in any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flows", "tasks", "model", "infra")
OF_A_CLONE = {"infra/setup_venv.sh"}
"""Files that serve a clone alone."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of this code, built offline by the backend that pip calls."""
    folder = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "prefect.yaml"):
        shutil.copy(ROOT / name, folder)
    code = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel's content, as pip lays it into site-packages."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_every_file_of_the_packages_travels(installed):
    files = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"model/presets/demo.toml", "tasks/planning/presets/demo.toml", "flows/prefect.yaml"} <= files
    assert {Path(file).suffix for file in files} >= {".py", ".toml", ".html", ".css", ".yaml", ".txt"}
    assert files - OF_A_CLONE == {
        str(path.relative_to(installed))
        for path in installed.rglob("*")
        if path.is_file() and path.relative_to(installed).parts[0] in PACKAGES
    }
    assert {path.name for path in installed.iterdir()} - {*PACKAGES} == {next(installed.glob("*.dist-info")).name}


def test_deployments_travel_with_their_flows(installed):
    text = (installed / "flows" / "prefect.yaml").read_text()
    assert text == (ROOT / "prefect.yaml").read_text()
    for deployment in yaml.safe_load(text)["deployments"]:
        path, function = deployment["entrypoint"].split(":")
        assert f"def {function}(" in (installed / path).read_text()


def test_the_command_is_installed(installed):
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "shareverse = flows.cli:app" in points.read_text().splitlines()


INSTALLED = """
import infra
from infra.stack.environment import dotenv_file
from infra.storage import home
from model.presets import Preset
from tasks.planning.preset import PlanPreset
print(infra.__file__, home(), dotenv_file(), Preset.load("demo").name, PlanPreset.load("demo").name, sep="\\n")
"""


def test_installed_it_works_in_any_folder_and_keeps_its_state_apart(installed, tmp_path):
    dropped = ("SHAREVERSE_HOME", "XDG_DATA_HOME", "PREFECT_API_URL")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    environment = kept | {"PYTHONPATH": str(installed), "HOME": str(tmp_path / "me"), "PYTHONDONTWRITEBYTECODE": "1"}

    def python(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    done = python("-c", INSTALLED)
    assert done.returncode == 0, done.stderr
    state = tmp_path / "me" / ".local" / "share" / "shareverse"
    assert done.stdout.split() == [
        str(installed / "infra" / "__init__.py"), str(state), str(state / "services" / ".env"), "demo", "demo",
    ]  # fmt: skip
    assert python("-m", "flows.cli", "demo", "--help").stdout.endswith("Example:\n    shareverse demo\n")
    done = python("-m", "flows.cli", "train")
    assert (done.returncode, done.stderr) == (1, "prefect does not run: start the services with `shareverse up`.\n")
    assert not list(tmp_path.rglob("*"))
