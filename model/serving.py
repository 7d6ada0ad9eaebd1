"""An exported folder as an MLflow model: `mlflow.pyfunc.load_model(folder).predict(table)`.

The table has one row per scene: `pictures`, a list with one PNG or JPEG per agent, in base64; `trajectories`, a list
with one per agent (model/trajectories.py); and, where the model's own steps and 0 are not meant, `num_inference_steps`
and `seed`. Lists may be JSON texts. Paths are not taken: they would be the server's.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from typing import Any

import torch
from PIL import Image

from model.pictures import PictureError
from model.pipeline import ShareVersePipeline
from model.trajectories import TrajectoryError


def _load_pyfunc(path: str) -> ServedPipeline:
    """Return the model in a folder: what MLflow calls. WeightsError for a damaged one."""
    pipeline = ShareVersePipeline.from_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)
    return ServedPipeline(pipeline.to("cuda" if torch.cuda.is_available() else "cpu"))


class ServedPipeline:
    """A pipeline behind MLflow's `predict`."""

    def __init__(self, pipeline: ShareVersePipeline) -> None:
        self.pipeline = pipeline

    def predict(self, table: Any, params: dict[str, Any] | None = None) -> list[list[list[str]]]:
        """Return frames as PNGs in base64, by scene, agent and time, of a pandas table as in the module's docstring.

        PictureError, TrajectoryError or PipelineError for a scene that cannot be used.
        """
        return [self.scene(row) for row in table.to_dict("records")]

    def scene(self, row: dict[str, Any]) -> list[list[str]]:
        """Return one scene's frames by agent and time."""
        trajectories = parsed(row.get("trajectories"))
        if not isinstance(trajectories, list):
            raise TrajectoryError("trajectories is no list: give one with a trajectory per agent.")
        pictures = parsed(row.get("pictures"))
        if not isinstance(pictures, list):
            raise PictureError("pictures is no list: give one with a PNG in base64 per agent.")
        videos = self.pipeline(
            [decoded(text, agent) for agent, text in enumerate(pictures)],
            trajectories,
            num_inference_steps=int(row["num_inference_steps"]) if "num_inference_steps" in row else None,
            generator=torch.Generator().manual_seed(int(row.get("seed", 0))),
        ).videos  # type: ignore[union-attr]
        return [[encoded(frame) for frame in video] for video in videos]


def parsed(value: Any) -> Any:
    """Return a value, or that of a JSON text. None where the text is none."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None


def decoded(text: Any, agent: int) -> Image.Image:
    """Return the image of a PNG or JPEG in base64. PictureError for anything else."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            return image.convert("RGB")
    except (TypeError, ValueError, binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"the picture of agent {agent} is no PNG or JPEG in base64.") from error


def encoded(image: Image.Image) -> str:
    """Return an image as a PNG in base64."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
