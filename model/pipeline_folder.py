"""The parts of a pipeline's folder, each checked before it is loaded.

model_index.json   which class each part has, and what the model must know of its input
transformer/ codec/ text/   weights (safetensors) and their configuration
scheduler/         the noise schedule's configuration
adapter/           where it was exported unmerged: LoRA's matrices for the transformer, in peft's layout
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from diffusers.models.modeling_utils import ModelMixin
from pydantic import ValidationError

from model.codec import LinearCodec
from model.presets import VideoConfig
from model.raymap import build_raymaps
from model.text import EmptyText
from model.trainable import ADAPTER_FOLDER, load_adapter
from model.transformer import ShareVerseTransformer3DModel
from model.weights import (
    INVALID_CONFIG_ERRORS,
    WeightsError,
    first_line,
    impossible_number,
    load_weights,
    local_folder,
    read_json_object,
)  # fmt: skip

INDEX = "model_index.json"
CLASSES: dict[str, tuple[type, ...]] = {
    "transformer": (ShareVerseTransformer3DModel,),
    "codec": (LinearCodec, AutoencoderKLCogVideoX),
    "text": (EmptyText,),
    "scheduler": (CogVideoXDDIMScheduler, CogVideoXDPMScheduler),
}
"""Classes that a part may have. Nothing else is imported, whatever the index says."""
ALWAYS_FLOAT32 = (LinearCodec, EmptyText)
RAYMAP_OPTIONS = set(inspect.signature(build_raymaps).parameters) - {"K", "c2w", "height", "width", "views"}
POSITIVE = ("fps", "fov_deg", "sampling_steps")
CHOICES: dict[str, tuple[Any, ...]] = {
    "given_frames": (0, 1),
    "image_condition": ("first", "all"),
    "predicts_change": (False, True),
}
"""Values of the options that have few."""


def load_pipeline_parts(
    name: str | Path, pipeline: str, torch_dtype: torch.dtype, *, skip: Collection[str] = (), merge_adapter: bool = True
) -> dict[str, Any]:
    """Return the arguments of the class `pipeline` that a folder holds, except those in `skip`.

    An adapter is merged into the transformer, or stays beside its weights in peft's modules. WeightsError for a folder
    that is missing or damaged, or holds another pipeline.
    """
    folder = local_folder(str(name))
    index = read_json_object(folder / INDEX)
    if index.get("_class_name") != pipeline:
        raise WeightsError(f"{folder} holds a {index.get('_class_name')!r:.60} where a {pipeline} belongs")
    if wrong := impossible_number(index):
        raise WeightsError(f"{folder / INDEX} says {wrong}, which is no number of a model")
    options = {key: value for key, value in index.items() if not key.startswith("_")}
    check_options({key: value for key, value in options.items() if key not in CLASSES}, folder / INDEX)
    parts = {part: class_of(options.pop(part, None), part, folder) for part in CLASSES}
    loaded: dict[str, Any] = {}
    for part, kind in parts.items():
        if part in skip:
            continue
        if issubclass(kind, ModelMixin):
            dtype = torch.float32 if kind in ALWAYS_FLOAT32 else torch_dtype
            loaded[part] = load_weights(kind, folder / part, torch_dtype=dtype, low_cpu_mem_usage=False)
        else:
            loaded[part] = load_scheduler(kind, folder / part)
    if "transformer" in loaded and (folder / ADAPTER_FOLDER).is_dir():
        load_adapter(loaded["transformer"], folder / ADAPTER_FOLDER, merge=merge_adapter)
    return loaded | {key: value for key, value in options.items() if key not in skip}


def check_options(options: dict[str, Any], file: Path) -> None:
    """Raise WeightsError for options of the pipeline that are unknown or make no sense."""
    video = {name: options[name] for name in VideoConfig.model_fields if name in options}
    try:
        VideoConfig.model_validate(video)
    except ValidationError as error:
        raise WeightsError(f"{file} describes no video ({error.errors()[0]['msg']})") from error
    raymap = options.get("raymap", {})
    if not isinstance(raymap, dict) or not raymap.keys() <= RAYMAP_OPTIONS:
        raise WeightsError(f"{file} has the raymap {raymap!r:.60}, which is none")
    for name, value in options.items():
        known = name in video or name in ("raymap", *CHOICES, *POSITIVE)
        wrong_number = name in POSITIVE and (type(value) not in (int, float) or value <= 0)
        wrong_choice = name in CHOICES and (type(value) is not type(CHOICES[name][0]) or value not in CHOICES[name])
        if not known or wrong_number or wrong_choice:
            raise WeightsError(f"{file} says {name!r:.40} {value!r:.40}, which is no option of a pipeline")


def class_of(entry: Any, part: str, folder: Path) -> type:
    """Return the class of a part from its entry [library, class] in the index."""
    name = entry[-1] if isinstance(entry, list) and entry else None
    found = [kind for kind in CLASSES[part] if kind.__name__ == name]
    if not found:
        known = " or ".join(kind.__name__ for kind in CLASSES[part])
        raise WeightsError(f"{folder / INDEX} says that the {part} is a {name!r:.60} and it must be a {known}")
    return found[0]


def load_scheduler(kind: type, folder: Path) -> Any:
    """Return a noise schedule. WeightsError when its configuration is missing or makes no sense."""
    file = folder / "scheduler_config.json"
    config = read_json_object(file)
    if wrong := impossible_number(config):
        raise WeightsError(f"{file} says {wrong}, which is no number of a noise schedule")
    try:
        return kind.from_config(config)  # type: ignore[attr-defined]
    except INVALID_CONFIG_ERRORS as error:
        raise WeightsError(f"{file} describes no {kind.__name__} ({first_line(error)})") from error
