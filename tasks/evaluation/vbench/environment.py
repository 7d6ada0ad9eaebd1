"""VBench's own virtual environment: it needs transformers 4.33 and numpy below 2, we need newer ones (trap 33: VBench
pins packages)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra.reading import parse_json, read_json
from infra.storage import atomic_file, home, sha256_file
from tasks.evaluation.vbench.errors import VBenchError

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
INSIDE = Path(__file__).with_name("inside.py")
"""The script that runs there; it knows the standard library and VBench, nothing of this project."""
PYTHON = (3, 11)
"""The newest Python that tokenizers 0.13, which transformers 4.33 needs, has wheels for."""
BUILD_TOOLS = ("setuptools==69.5.1", "wheel==0.45.1")
"""openai-clip imports pkg_resources, which newer setuptools lack; some packages come as source only."""


def folder() -> Path:
    """Return where everything of VBench lies: `env/` and `weights/`."""
    return home() / "vbench"


def interpreter() -> Path:
    """Return the environment's Python, there or not."""
    return folder() / "env" / "bin" / "python"


def marker() -> Path:
    return folder() / "env" / "ready.json"


def is_ready() -> bool:
    """Say whether the environment stands and was made from the requirements as they are now."""
    return interpreter().exists() and record().get("requirements") == sha256_file(REQUIREMENTS)


def record() -> dict[str, Any]:
    """Return what ready.json says; nothing where it is missing or damaged, as the environment is then made anew."""
    try:
        ready: dict[str, Any] = read_json(marker(), "the environment is made anew.", error=VBenchError)
    except VBenchError:
        return {}
    return ready if isinstance(ready.get("versions"), dict) else {}


def base_python() -> str:
    """Return a Python of version PYTHON. VBenchError if there is none."""
    if sys.version_info[:2] == PYTHON:
        return sys.executable
    python = shutil.which(f"python{PYTHON[0]}.{PYTHON[1]}")
    if python is None:
        raise VBenchError(
            f"VBench 0.1.5 needs Python {PYTHON[0]}.{PYTHON[1]} (its transformers 4.33.2 has no newer wheels) and "
            f"this is {sys.version_info[0]}.{sys.version_info[1]}: install python{PYTHON[0]}.{PYTHON[1]}."
        )
    return python


def run(*command: str) -> str:
    """Run a command, show what it says on stderr, return its stdout. VBenchError with its last words if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise VBenchError(f"setting up VBench stopped at `{' '.join(command[:5])} ...`: {words[-1]}")
    return done.stdout


def setup(*, again: bool = False) -> dict[str, str]:
    """Make the environment (about 6 GB, some minutes) unless it stands; return the versions found in it.

    The pinned torch from the default index runs with and without a GPU. Where pip is given an index that holds
    its CPU build, that one is taken, as pip prefers a local version. VBenchError in one sentence.
    """
    if again or not is_ready():
        marker().unlink(missing_ok=True)
        folder().mkdir(parents=True, exist_ok=True)
        run(base_python(), "-m", "venv", "--clear", str(folder() / "env"))
        pip = (str(interpreter()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, *BUILD_TOOLS)
        run(*pip, "--no-build-isolation", "-r", str(REQUIREMENTS))
        versions = probe()
        with atomic_file(marker()) as temporary:
            temporary.write_text(json.dumps({"requirements": sha256_file(REQUIREMENTS), "versions": versions}))
    return dict(record()["versions"])


def probe() -> dict[str, str]:
    """Import VBench with all six dimensions in its environment; return the versions of its packages.

    VBenchError if it cannot be imported or its last line is not JSON.
    """
    lines = run(str(interpreter()), "-P", str(INSIDE), "probe").splitlines() or [""]
    versions: dict[str, str] = parse_json(
        lines[-1], "the last line of VBench's probe", "set VBench up again.", error=VBenchError
    )
    return versions
