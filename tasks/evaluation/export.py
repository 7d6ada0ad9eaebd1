"""A run's model as a folder to hand on: weights, configuration, and a card with what the evaluation measured.

README.md      the model card
run.json       the run's configuration, and the digest of its data
transformer/   the last checkpoint's weights, averaged where the run averages (diffusers layout, safetensors)
codec/         the linear codec that was fitted on the run's data; CogVideoX's VAE is its own to distribute
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from infra.reading import read_json
from infra.storage import atomic_dir
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.report.report import METRICS
from tasks.evaluation.report.write import folder_of, latents_dir_of
from tasks.runs.checkpoint_record import check_files
from tasks.runs.run import Run, steps_of

CARD = """---
library_name: diffusers
pipeline_tag: image-to-video
tags: [shareverse, world-model, multi-agent]
---
# ShareVerse, {title}

Generates the videos of two agents in one world, from their first frames and their cameras' trajectories, as
[ShareVerse](https://arxiv.org/abs/2603.02697) does. Made with its open implementation, whose classes load it.

| | |
|---|---|
| configuration | preset `{preset}` with the changes in `run.json`; {frames} frames of {width}x{height} |
| trained | {steps} of {train_steps} steps on data set `{dataset}`, digest `{digest}` |
| codec | {codec} |

```python
from model.transformer import ShareVerseTransformer3DModel

transformer = ShareVerseTransformer3DModel.from_pretrained("transformer")
```

## What it can do

{figures}
"""


def figures_of(run: Run, checkpoint: Path) -> str:
    """Return the evaluation's verdict and table as Markdown, or how to get them where this checkpoint has none.

    EvaluationError for a damaged report.
    """
    file = folder_of(run, "test") / "report.json"
    advice = f"run `shareverse evaluate --run {run.run_id}` and export again"
    if not file.exists():
        return f"Not measured: {advice}."
    report: dict[str, Any] = read_json(file, f"{advice}.", error=EvaluationError)
    try:
        if Path(report["checkpoint"]).name != checkpoint.name:
            return f"Not measured at this step, the evaluation is of {Path(report['checkpoint']).name}: {advice}."
        shown = {name: title for name, title in METRICS.items() if any(name in row for row in report["rows"])}
        lines = [["", *shown.values()], ["---"] * (len(shown) + 1)]
        lines += [[row["label"], *(interval(row.get(name)) for name in shown)] for row in report["rows"]]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return "\n\n".join(["\n".join(f"- {said}" for said in report["verdict"]), table, report["convention"]])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EvaluationError(f"{file} is no report ({error!r}): {advice}.") from error


def interval(figure: dict[str, float] | None) -> str:
    """Return a figure of the report's table with its interval, where it has them."""
    if figure is None:
        return "–"
    ends = f" [{figure['low']:.3f}, {figure['high']:.3f}]" if "low" in figure else ""
    return f"{figure['mean']:.3f}{ends}"


def export_run(run: Run, folder: Path) -> None:
    """Write a run's last checkpoint and its card to a new `folder`, complete or not at all.

    EvaluationError when there is no checkpoint, its codec is gone, or the folder holds something; RunError for a
    damaged checkpoint, StorageError for a folder that cannot be.
    """
    folder, checkpoint = folder.absolute(), run.latest_checkpoint()
    if checkpoint is None:
        raise EvaluationError(f"run {run.run_id} has no checkpoint in {run.folder}: train it first.")
    if folder.is_dir() and any(folder.iterdir()):
        raise EvaluationError(f"{folder} is not empty: name a new folder.")
    codec, linear = latents_dir_of(run) / "codec", run.preset.codec.codec == "linear"
    if linear and not codec.is_dir():
        raise EvaluationError(f"the run's codec is gone from {codec}: run train-shareverse again with its parameters.")
    check_files(checkpoint, "model/")
    video = run.preset.video
    card = CARD.format(
        title=run.name or run.run_id, preset=run.preset.name, frames=video.frames, width=video.width,
        height=video.height, steps=steps_of(checkpoint), train_steps=run.preset.training.train_steps,
        dataset=run.dataset, digest=run.dataset_digest, figures=figures_of(run, checkpoint),
        codec="linear, in `codec/`" if linear else "CogVideoX's VAE, which comes with CogVideoX",
    )  # fmt: skip
    with atomic_dir(folder) as temporary:
        shutil.copytree(checkpoint / "model", temporary / "transformer")
        if linear:
            shutil.copytree(codec, temporary / "codec")
        shutil.copy(run.folder / "run.json", temporary)
        (temporary / "README.md").write_text(card)
