"""`python docs/site/draw_architecture.py`: draw docs/images/architecture.svg from the packages and their docstrings.

The order of the steps is that of their imports: each box stands below every package that it imports.
"""

from __future__ import annotations

import ast
import textwrap
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "docs" / "images" / "architecture.svg"
WIDTH, MARGIN, LINE, GAP, TEXT_X, CHARACTERS = 1000, 24, 19, 8, 230, 82
COLOURS = {"flows": "#dbeafe", "tasks": "#dcfce7", "model": "#fef3c7", "infra": "#f3e8ff"}
STYLE = (
    "text { font-family: system-ui, sans-serif; font-size: 14px; fill: #1f2937 } "
    ".name { font-weight: 600; font-family: ui-monospace, monospace } rect { stroke: #9ca3af }"
)


def sentence_of(package: Path) -> str:
    """Return the first paragraph of a package's docstring as plain text."""
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    return docstring.split("\n\n")[0].replace("\n", " ").replace("`", "")


def imports_of(package: Path, names: set[str]) -> set[str]:
    """Return which of the sibling packages `names` a package imports."""
    parent = ".".join(package.relative_to(ROOT).parent.parts)
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{parent}."):
                found.add((node.module or "").removeprefix(f"{parent}.").split(".")[0])
    return (found & names) - {package.name}


def steps() -> list[Path]:
    """Return the packages of tasks/, each after all that it imports; of two that could be next, the alphabet's last."""
    packages = {path.parent.name: path.parent for path in sorted((ROOT / "tasks").glob("*/__init__.py"))}
    needs = {name: imports_of(path, set(packages)) for name, path in packages.items()}
    order: list[str] = []
    while len(order) < len(packages):
        ready = [name for name in needs if name not in order and needs[name] <= set(order)]
        order.append(ready[-1])
    return [packages[name] for name in order]


def drawing() -> str:
    """Return the picture as SVG."""
    infra = [path.parent for path in sorted((ROOT / "infra").glob("*/__init__.py"))]
    rows = [
        ("flows", ROOT / "flows", 0),
        *(("tasks", path, 1) for path in steps()),
        ("model", ROOT / "model", 0),
        ("infra", ROOT / "infra", 0),
        *(("infra", path, 1) for path in infra),
    ]
    boxes, y = [], MARGIN
    for group, path, depth in rows:
        lines = textwrap.wrap(sentence_of(path), CHARACTERS)
        x, height = MARGIN + 28 * depth, LINE * len(lines) + 14
        boxes.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH - MARGIN - x}" height="{height}" rx="6" fill="{COLOURS[group]}"/>'
            f'<text x="{x + 12}" y="{y + 21}" class="name">{path.relative_to(ROOT)}/</text>'
        )
        boxes += [
            f'<text x="{MARGIN + TEXT_X}" y="{y + 21 + LINE * number}">{escape(line)}</text>'
            for number, line in enumerate(lines)
        ]
        y += height + GAP
    title = "The packages: each imports only what stands above it in tasks/, and model/ and infra/ below"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + MARGIN - GAP}" role="img">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        f'<rect width="100%" height="100%" style="fill: #ffffff; stroke: none"/>{"".join(boxes)}</svg>\n'
    )


if __name__ == "__main__":
    TARGET.write_text(drawing())
    print(TARGET.relative_to(ROOT))
