"""Weights on disk: a diffusers folder is compared with its own configuration before anything of it is loaded.

diffusers itself loads what fits and warns about the rest; here a tensor that is missing, too many, of another shape or
not finite is an error. Only safetensors are read: a pickle could run code.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
HUB_BASE = "THUDM/CogVideoX-5b-I2V"
STEM = "diffusion_pytorch_model"
IMPOSSIBLE = (
    ArithmeticError, AttributeError, IndexError, KeyError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What building a model raises for configurations that make no sense."""
MOST_JSON_BYTES = 2**26
"""Of a configuration, or an index of weights."""
FLOATS = {"F64", "F32", "F16", "BF16"}
Model = TypeVar("Model", bound=ModelMixin)
Shape = tuple[int, ...]


class WeightsError(ValueError):
    """A folder that holds no weights, or others than its configuration describes: which, and what is wrong."""


def local_folder(name: str) -> Path:
    """Return a folder as it is named, or that of a name on the Hugging Face hub that was downloaded before.

    WeightsError, with the command, where there is none: nothing is downloaded here.
    """
    if Path(name).is_dir():
        return Path(name).resolve()
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        wanted = name if HUB_NAME.fullmatch(name) else HUB_BASE
        raise WeightsError(
            f"{name!a} is no folder, and no model of that name was downloaded: run `hf download {wanted}`, or name a "
            "folder"
        ) from error


def require_file(path: Path) -> None:
    """Raise WeightsError for what is no plain file: a pipe or a device need not end."""
    if not path.is_file():
        raise WeightsError(f"{path} cannot be read (there is no such file)")


def read_object(path: Path) -> dict[str, Any]:
    """Return a JSON file's object. WeightsError for a missing or damaged file."""
    require_file(path)
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise WeightsError(f"{path} has more than {MOST_JSON_BYTES} bytes, which is no model's")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} holds no readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} holds a JSON {type(value).__name__} where an object belongs")
    return value


def weight_files(folder: Path, stem: str = STEM) -> list[Path]:
    """Return a model's safetensors files, one or those of its index. WeightsError when there are none."""
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise WeightsError(f"{folder} holds no {stem}.safetensors")
    placed = read_object(index).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
        raise WeightsError(f"{index} does not say which file holds which weights")
    names = sorted(set(placed.values()))
    if any(Path(name).name != name for name in names):
        raise WeightsError(f"{index} names files outside of its folder")
    return [folder / name for name in names]


def stored_shapes(folder: Path) -> dict[str, Shape]:
    """Return the shapes of a folder's tensors by name, from the files' headers. WeightsError for a damaged file."""
    shapes: dict[str, Shape] = {}
    for file in weight_files(folder):
        require_file(file)
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - no mapping
                    part = opened.get_slice(name)
                    shapes[name] = tuple(part.get_shape())
                    if part.get_dtype() not in FLOATS:
                        raise WeightsError(f"{file} holds {name} as {part.get_dtype()}, which are no weights")
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{file} cannot be read ({error})") from error
    return shapes


def described(kind: type[Model], folder: Path, tensors: int) -> tuple[Model, dict[str, Any]]:
    """Return the model that a folder's config.json describes, without memory (on the meta device), and the
    configuration. WeightsError when it describes none, or one of more layers than there are tensors."""
    config = read_object(folder / "config.json")
    named = config.get("_class_name", kind.__name__)
    if named != kind.__name__:
        raise WeightsError(f"{folder} holds a {named} where a {kind.__name__} belongs")
    layers = config.get("num_layers", 0)
    if not isinstance(layers, int) or layers > tensors:
        raise WeightsError(f"{folder / 'config.json'} describes {layers} layers and there are {tensors} tensors")
    try:
        with torch.device("meta"):
            return kind.from_config(config), config
    except IMPOSSIBLE as error:
        raise WeightsError(f"{folder / 'config.json'} describes no {kind.__name__} ({error})") from error


def check_folder(kind: type[Model], folder: Path) -> tuple[Model, dict[str, Any]]:
    """Return what `described` does, after a comparison with the headers of the weights beside it.

    WeightsError for the first tensor that is missing, too many or of another shape.
    """
    stored = stored_shapes(folder)
    model, config = described(kind, folder, len(stored))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() | stored.keys()):
        has, needs = stored.get(name), expected.get(name)
        if has is None:
            raise WeightsError(f"{folder} lacks the tensor {name} that its config.json describes")
        if needs is None:
            raise WeightsError(f"{folder} holds the tensor {name} that its config.json does not describe")
        if has != needs:
            raise WeightsError(f"{folder} holds {name} as {has} where its config.json describes {needs}")
    return model, config


def load_weights(kind: type[Model], folder: Path, **options: Any) -> Model:
    """Return a model from its folder, float32 unless `options` (of `from_pretrained`) say otherwise.

    WeightsError when the folder is damaged, holds other weights than it describes, or some that are not finite.
    """
    check_folder(kind, folder)
    try:
        model = kind.from_pretrained(folder, use_safetensors=True, **options)
    except (OSError, SafetensorError, *IMPOSSIBLE) as error:
        raise WeightsError(f"{folder} cannot be loaded ({error})") from error
    for name, tensor in model.state_dict().items():
        if not is_finite(tensor):
            raise WeightsError(f"{folder} holds {name} with values that are not finite")
    return model


def is_finite(tensor: torch.Tensor) -> bool:
    """Tell whether all of a tensor's values are, without a copy of it."""
    return not tensor.numel() or bool(torch.linalg.vector_norm(tensor.detach(), math.inf).isfinite())
