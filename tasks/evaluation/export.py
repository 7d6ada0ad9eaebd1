"""A run's model as a folder to hand on: a diffusers pipeline, and a card with what the evaluation measured.

README.md          the model card
run.json           the run's configuration, and the digest of its data
model_index.json   the pipeline's parts, and what the model must know of its input (model/pipeline_folder.py)
transformer/       the last checkpoint's weights, averaged where the run averages (safetensors)
codec/             the linear codec that was fitted on the run's data, or CogVideoX's VAE
adapter/           of a LoRA run where it is not merged: its matrices in peft's layout; transformer/ is the base then,
                   with what was added to it
scheduler/ text/   the noise schedule, and the empty prompt's embedding
MLmodel code/      the same folder as an MLflow model (model/serving.py), and the package `model` that loads it
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from infra.reading import read_json
from infra.storage import atomic_dir
from model import serving
from model.base_model import is_own_base
from model.build import build_transformer
from model.presets import Preset
from model.trainable import ADAPTER_FOLDER, is_added
from model.transformer import ShareVerseTransformer3DModel
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.report.report import METRICS
from tasks.evaluation.report.write import folder_of, latents_dir_of
from tasks.evaluation.scoring.sampling import Sampler
from tasks.runs.checkpoint_record import check_files
from tasks.runs.run import Run, steps_of

CARD = """---
{licence}
library_name: diffusers
pipeline_tag: image-to-video
tags: [shareverse, world-model, multi-agent]
---
# ShareVerse, {title}

Generates the videos of two agents in one world, from their first frames and their cameras' trajectories, as
[ShareVerse](https://arxiv.org/abs/2603.02697) does. Made with its open implementation, whose class loads it: it is
imported from `model.pipeline`, not from diffusers.

| | |
|---|---|
| configuration | preset `{preset}` with the changes in `run.json`; {frames} frames of {width}x{height} |
| trained | {steps} of {train_steps} steps on data set `{dataset}`, digest `{digest}` |
| codec | {codec} |

```python
import torch

from model.pipeline import ShareVersePipeline

pipe = ShareVersePipeline.from_pretrained(".")
size = pipe.config.height, pipe.config.width
pictures = [torch.full((3, *size), 0.5), torch.full((3, *size), 0.5)]  # or paths, PIL images, arrays
stand = {{"x": 0.0, "y": 0.0, "z": 0.0, "pitch": 0.0, "yaw": 0.0, "roll": 0.0}}
ahead = [stand | {{"x": 0.5 * frame}} for frame in range(pipe.config.frames)]
behind = [pose | {{"x": pose["x"] - 10.0}} for pose in ahead]
output = pipe(pictures=pictures, trajectories=[ahead, behind], generator=torch.Generator().manual_seed(0))
output.videos[0][-1].save("agent0.png")
```

## What it can do

{figures}
"""


APACHE = "license: apache-2.0"
COGVIDEOX = """license: other
license_name: cogvideox
license_link: https://huggingface.co/THUDM/CogVideoX-5b-I2V/blob/main/LICENSE"""
"""For a model that holds weights of CogVideoX-5B: its transformer or its VAE."""


def holds_cogvideox(preset: Preset) -> bool:
    """Tell whether a model holds weights of CogVideoX: its VAE, or a transformer that began as one."""
    base = preset.transformer.base_model
    return preset.codec.codec != "linear" or bool(base and not is_own_base(base))


def frames_per_second(run: Run) -> float:
    """Return the rate of a run's clips. RunError where its data set is gone or another one."""
    index = run.clips()
    return float(json.loads(index.read(index.rows[0])["meta.json"])["fps"])


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


def add_mlflow_flavour(folder: Path) -> None:
    """Make a pipeline's folder an MLflow model of the flavour pyfunc, which brings the package `model` along."""
    from mlflow import pyfunc  # here: it takes seconds
    from mlflow.models import Model

    package = Path(serving.__file__).parent
    shutil.copytree(package, folder / "code" / package.name, ignore=shutil.ignore_patterns("__pycache__", "base"))
    flavour = Model()
    pyfunc.add_to_model(flavour, loader_module=serving.__name__, data=".", code="code")
    flavour.save(folder / "MLmodel")


def unmerged(merged: ShareVerseTransformer3DModel, preset: Preset) -> ShareVerseTransformer3DModel:
    """Return a LoRA run's base with the added weights of its merged model. PresetError for a base that is gone."""
    model = build_transformer(preset)
    model.load_state_dict({name: value for name, value in merged.state_dict().items() if is_added(name)}, strict=False)
    return model


def export_run(run: Run, folder: Path, *, merge: bool = True) -> None:
    """Write a run's last checkpoint as a pipeline, with its card, to a new `folder`, complete or not at all.

    `merge` False leaves the low-rank updates of a LoRA run beside its base. EvaluationError when there is no
    checkpoint, none with such updates, its codec is gone, or the folder holds something; RunError for a
    damaged checkpoint or a data set that is not the run's, CodecError or PresetError for a VAE or a text embedding that
    cannot be loaded, StorageError for a folder that cannot be.
    """
    folder, checkpoint = folder.absolute(), run.latest_checkpoint()
    if checkpoint is None:
        raise EvaluationError(f"run {run.run_id} has no checkpoint in {run.folder}: train it first.")
    if folder.is_dir() and any(folder.iterdir()):
        raise EvaluationError(f"{folder} is not empty: name a new folder.")
    if not merge and run.preset.training.trainable != "lora":
        raise EvaluationError(f"run {run.run_id} has no adapter, it trained no LoRA: export it merged.")
    codec, linear = latents_dir_of(run) / "codec", run.preset.codec.codec == "linear"
    if linear and not codec.is_dir():
        raise EvaluationError(f"the run's codec is gone from {codec}: run train-shareverse again with its parameters.")
    pipeline = Sampler.of_checkpoint(run.preset, checkpoint, latents_dir_of(run)).pipeline
    if not merge:
        check_files(checkpoint, f"{ADAPTER_FOLDER}/")
        pipeline.register_modules(transformer=unmerged(pipeline.transformer, run.preset))
    pipeline.register_to_config(fps=frames_per_second(run))
    video = run.preset.video
    card = CARD.format(
        title=run.name or run.run_id, preset=run.preset.name, frames=video.frames, width=video.width,
        height=video.height, steps=steps_of(checkpoint), train_steps=run.preset.training.train_steps,
        dataset=run.dataset, digest=run.dataset_digest, figures=figures_of(run, checkpoint),
        codec="linear, in `codec/`" if linear else "CogVideoX's VAE, in `codec/`",
        licence=COGVIDEOX if holds_cogvideox(run.preset) else APACHE,
    )  # fmt: skip
    with atomic_dir(folder) as temporary:
        pipeline.save_pretrained(temporary)
        if not merge:
            shutil.copytree(checkpoint / ADAPTER_FOLDER, temporary / ADAPTER_FOLDER)
        add_mlflow_flavour(temporary)
        shutil.copy(run.folder / "run.json", temporary)
        (temporary / "README.md").write_text(card)
