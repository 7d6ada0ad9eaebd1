"""Imports run one way, flows -> tasks -> model, infra; files stay readable."""

from __future__ import annotations

import ast
import functools
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
STEPS = ("planning", "recording", "sharding", "runs", "encoding", "training", "evaluation", "play", "benchmark")
"""The packages of tasks/, each of which imports only earlier ones."""
EVALUATION = ("errors", "measures", "scoring", "report", "generate", "export", "vbench", "task", "__main__")
"""The same of tasks/evaluation/."""
MOST_LINES = 400


@functools.cache
def imported(source: str, package: str = "") -> frozenset[str]:
    """Every module that a source text of `package` imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            names.add(".".join([*above, *([node.module] if node.module else [])]))
    return frozenset(names)


def of_the_project(path: Path) -> set[str]:
    """The project's modules that a file imports."""
    names = imported((ROOT / path).read_text(), ".".join(path.parent.parts))
    return {name for name in names if name.split(".")[0] in {*PACKAGES, "tests"}}


def test_the_reader_of_imports_sees_all_forms():
    source = "import a.b, c\nfrom d.e import f\ndef g():\n    from h import i\nfrom . import j\nfrom ..k import l"
    assert imported(source, "x.y") == {"a.b", "c", "d.e", "h", "x.y", "x.k"}
    assert len(SOURCES) > 50


def test_imports_run_one_way():
    wrong = [
        f"{path} imports {name}"
        for path in SOURCES
        for name in of_the_project(path)
        if name.split(".")[0] not in MAY_IMPORT[path.parts[0]]
    ]
    assert not wrong


@pytest.mark.parametrize(("package", "order"), [("tasks", STEPS), ("tasks.evaluation", EVALUATION)])
def test_packages_import_only_earlier_ones(package, order):
    folder = Path(*package.split("."))
    parts = {path.stem for path in (ROOT / folder).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} == set(order)
    wrong = []
    for path in (path for path in SOURCES if path.is_relative_to(folder)):
        here = path.relative_to(folder).parts[0].removesuffix(".py")
        for name in of_the_project(path):
            there = name.removeprefix(f"{package}.").split(".")[0]
            if name.startswith(f"{package}.") and here != "__init__" and order.index(there) > order.index(here):
                wrong.append(f"{path} imports {name}")
    assert not wrong


def test_minicarla_knows_nothing_of_the_rest():
    inside = [path for path in SOURCES if path.is_relative_to("infra/minicarla")]
    names = {(path, name) for path in inside for name in of_the_project(path)}
    assert len(inside) > 20
    assert not [(path, name) for path, name in names if not f"{name}.".startswith("infra.minicarla.")]


def test_prefect_is_known_to_flows_task_modules_and_infra_only():
    for path in SOURCES:
        if path.parts[0] not in ("flows", "infra") and path.name != "task.py":
            assert "prefect" not in {name.split(".")[0] for name in imported((ROOT / path).read_text())}, path


def test_files_fit_in_a_reading():
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in SOURCES}
    assert not {path: lines for path, lines in lengths.items() if lines > MOST_LINES}
    assert not [path for path in SOURCES if path.stem == "utils"]
