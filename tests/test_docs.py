"""The documentation site has every page, its API pages name modules that are there, the picture is the code's."""

from __future__ import annotations

import ast
import csv
import importlib.util
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ["date", "entry", "commit", "machine", "subject", "metric", "value", "low", "high", "unit", "command"]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_of(nav: Any) -> set[str]:
    if isinstance(nav, str):
        return {nav}
    return set().union(*(pages_of(part) for part in (nav.values() if isinstance(nav, dict) else nav)))


def api_modules() -> dict[str, list[str]]:
    """API of docs/site/hooks.py, read without mkdocs."""
    tree = ast.parse((ROOT / "docs" / "site" / "hooks.py").read_text())
    (value,) = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "API"]
    return {page: modules for page, (_, modules) in ast.literal_eval(value).items()}


def test_every_page_is_in_the_navigation():
    nav = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert nav == written | {"index.md"} | {f"api/{page}.md" for page in api_modules()}


def test_modules_of_the_api_pages_exist():
    for module in (module for modules in api_modules().values() for module in modules):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), module


def test_the_picture_of_the_packages_is_drawn_from_the_code():
    drawn = script("draw_architecture").drawing()
    assert (ROOT / "docs" / "images" / "architecture.svg").read_text() == drawn, "python docs/site/draw_architecture.py"
    for package in ("tasks", "infra"):
        for path in (ROOT / package).glob("*/__init__.py"):
            assert f"{path.parent.relative_to(ROOT)}/" in drawn


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.csv")), ids=lambda path: path.stem)
def test_measured_figures_belong_to_an_entry_of_the_log(path):
    log = (ROOT / "docs" / "LOG.md").read_text()
    entries = {line.removeprefix("## ") for line in log.splitlines() if line.startswith("## ")}
    assert f"(results/{path.name})" in log
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    for row in rows:
        assert f"{date.fromisoformat(row['date'])}: {row['entry']}" in entries, row
        assert all(row[name] for name in ("machine", "subject", "metric", "command")), row
        assert row["value"] or (row["low"] and row["high"]), row
        low, high = (float(row[name] or "nan") for name in ("low", "high"))
        assert not low > float(row["value"] or high), row
        assert not float(row["value"] or low) > high, row
