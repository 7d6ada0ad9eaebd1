"""Imports run one way, flows -> tasks -> model, infra; files stay readable."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flows", "tasks", "model", "infra", "benchmarks")
SOURCES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAY_IMPORT = {
    "flows": {"flows", "tasks", "infra"},
    "tasks": {"tasks", "model", "infra"},
    "model": {"model"},
    "infra": {"infra"},
    "benchmarks": {"benchmarks", "tasks", "model", "infra"},
}
MOST_LINES = 400


def imported(source: str) -> set[str]:
    """Every module that a source text imports, at its top or inside a function; relative imports as '.'."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else str(node.module))
    return names


def of_the_project(path: Path) -> set[str]:
    """The project's modules that a file imports."""
    return {name for name in imported((ROOT / path).read_text()) if name.split(".")[0] in {*PACKAGES, "tests", ""}}


def test_the_reader_of_imports_sees_all_forms():
    source = "import a.b, c\nfrom d.e import f\ndef g():\n    from h import i\nfrom . import j"
    assert imported(source) == {"a.b", "c", "d.e", "h", "."}
    assert len(SOURCES) > 50


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_run_one_way(path):
    wrong = {name for name in of_the_project(path) if name.split(".")[0] not in MAY_IMPORT[path.parts[0]]}
    assert not wrong, f"{path} imports {wrong}"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to("infra/minicarla")], ids=str)
def test_minicarla_knows_nothing_of_the_rest(path):
    wrong = {name for name in of_the_project(path) if not name.startswith("infra.minicarla")}
    assert not wrong, f"{path} imports {wrong}: minicarla is spoken to over TCP only"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_prefect_is_known_to_flows_and_task_modules_only(path):
    allowed = path.parts[0] == "flows" or path.name == "task.py" or path.parts[0] == "infra"
    assert allowed or not {name for name in imported((ROOT / path).read_text()) if name.split(".")[0] == "prefect"}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_files_fit_in_a_reading(path):
    assert len((ROOT / path).read_text().splitlines()) <= MOST_LINES
    assert path.stem != "utils"
