"""What mkdocs does besides: README as the first page, API pages, links to files outside of docs/ as names of files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
API = {
    "model": ("The model", [
        "model.camera", "model.raymap", "model.mosaic", "model.codec", "model.objective", "model.cross_agent",
        "model.transformer", "model.pipeline", "model.pictures", "model.trajectories", "model.bicycle", "model.serving",
        "model.build", "model.presets",
    ]),
    "data": ("Data", [
        "tasks.planning.preset", "tasks.planning.plan", "tasks.recording.pool", "tasks.sharding.reader",
        "tasks.sharding.contract", "tasks.sharding.verify", "tasks.sharding.convert", "tasks.encoding.latents",
        "tasks.runs.run",
    ]),
    "measures": ("Measures and benchmark", [
        "tasks.evaluation.measures.metrics", "tasks.evaluation.measures.ssim", "tasks.evaluation.measures.statistics",
        "tasks.evaluation.measures.shared_world.world", "tasks.evaluation.measures.shared_world.figures",
        "tasks.evaluation.scoring.sampling", "tasks.benchmark.entries", "tasks.benchmark.score",
    ]),
}  # fmt: skip
"""Page -> its title and the modules it describes."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the first page, from README.md, and the API pages."""
    readme = (ROOT / "README.md").read_text().replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=readme))
    for name, (title, modules) in API.items():
        content = f"# {title}\n\n" + "\n".join(f"::: {module}\n" for module in modules)
        files.append(File.generated(config, f"api/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to files that are no pages into the names of the files, or into links where `repo_url` is set."""

    def mended(match: re.Match[str]) -> str:
        picture, text, target, anchor = match.groups()
        if "://" in target or files.get_file_from_path(target):
            return match.group(0)
        path = target.removeprefix("../")
        if not (ROOT / path).exists():
            return match.group(0)  # mkdocs says that it leads nowhere
        if config.repo_url:
            return f"{picture}[{text}]({config.repo_url.rstrip('/')}/blob/main/{path}{anchor or ''})"
        return f"{text} (`{path}`)" if text.strip("`") not in path else f"`{path}`"

    return markdown if page.file.src_uri.startswith("api/") else LINK.sub(mended, markdown)
