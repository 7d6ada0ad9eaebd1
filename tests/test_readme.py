"""README and docs say what is there: links, commands, parameters, the snippet."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from model.presets import Preset
from tasks.planning.preset import PlanPreset
from tests.synthetic_dataset import write_dataset

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def flows() -> dict[str, set[str]]:
    """Every flow's name and its parameters, read without importing Prefect."""
    found = {}
    for path in (ROOT / "flows").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                for call in (d for d in node.decorator_list if isinstance(d, ast.Call)):
                    names = [k.value.value for k in call.keywords if k.arg == "name"]
                    found |= {name: {argument.arg for argument in node.args.args} for name in names}
    return found


def deployments() -> set[str]:
    """Every `<flow>/<deployment>` of prefect.yaml."""
    names = set()
    for entry in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        function = entry["entrypoint"].split(":")[1]
        names.add(f"{function.replace('_', '-')}/{entry['name']}")
    return names


def commands(*start: str) -> list[list[str]]:
    """Every command in the pages' shell blocks that begins with these words."""
    lines = [line for page in PAGES for block in blocks(page.read_text(), "sh") for line in block.splitlines()]
    split = [shlex.split(line, comments=True) for line in lines]
    return [words for words in split if words[: len(start)] == list(start)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_number_is_filled_in(page):
    assert "FILL" not in page.read_text()


def test_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"`make ([a-z-]+)", text)) | {words[1] for words in commands("make")}
    assert {"demo", "test", "status", "down"} <= named <= targets


def test_deployments_and_their_parameters_exist():
    runs = commands("prefect", "deployment", "run")
    assert {"collect-dataset/local", "train-shareverse/local"} <= {words[3] for words in runs} <= deployments()
    batches = commands("python", "-m", "flows.batch")
    assert batches
    for words in [*runs, *batches]:
        given = [words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "--param"]
        assert set(given) <= flows()[words[3].split("/")[0]], words


def test_overrides_are_fields_of_the_presets():
    kinds = {"collect-dataset": PlanPreset, "train-shareverse": Preset}
    given = [
        (kinds[words[3].split("/")[0]], json.loads(word.removeprefix("overrides=")))
        for words in commands("prefect", "deployment", "run")
        for word in words
        if word.startswith("overrides=")
    ]
    assert given
    for kind, overrides in given:
        kind.load("demo").replace(**overrides)


def test_modules_that_are_run_exist():
    named = re.findall(r"python -m ([a-z_]+(?:\.[a-z_]+)+)", "\n".join(page.read_text() for page in PAGES))
    assert named
    for module in named:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_snippet_runs(tmp_path, monkeypatch, capsys):
    write_dataset(tmp_path / "var" / "datasets" / "demo", train=1, val=1, test=1, frames=9)
    monkeypatch.chdir(tmp_path)
    snippet, *_ = blocks((ROOT / "docs" / "DATA_SET.md").read_text(), "python")
    exec(compile(snippet, "DATA_SET.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 ")
    assert lines[1:] == ["(2, 9, 64, 96, 3)", "(2, 4, 9, 4, 4)", "(2, 9, 64, 96)"]


def test_the_paper_is_cited_with_all_its_authors():
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    assert "2603.02697" in paper["url"]
    assert paper["title"] in README
    named = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert named in README


def test_variables_that_the_user_sets_are_read_somewhere():
    files = [*(ROOT / "docker").glob("*.yaml"), *(ROOT / "infra").rglob("*.sbatch")]
    files += [path for folder in ("infra", "tasks") for path in (ROOT / folder).rglob("*.py")]
    sources = "\n".join(path.read_text() for path in files)
    for name in set(re.findall(r"SHAREVERSE_[A-Z_]+", "\n".join(page.read_text() for page in PAGES))):
        assert name in sources, name


def test_sentences_of_the_page_on_troubles_are_said_somewhere():
    page = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text()
    said = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    sources = [path for folder in ("infra", "tasks", "model", "flows") for path in (ROOT / folder).rglob("*")]
    text = "\n".join(path.read_text() for path in sources if path.suffix in (".py", ".sh"))
    assert len(said) > 20
    assert not [sentence for sentence in said if sentence not in text]
