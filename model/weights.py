"""Weights on disk: a diffusers folder is checked against its own configuration before it is loaded.

diffusers loads what fits and warns about the rest. Here a tensor that is missing, unexpected, of the wrong shape or not
finite is an error. Only safetensors files are read: a pickle could run code.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
HUB_BASE = "THUDM/CogVideoX-5b-I2V"
WEIGHTS_STEM = "diffusion_pytorch_model"
INVALID_CONFIG_ERRORS = (
    ArithmeticError, AttributeError, IndexError, KeyError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""Raised when a model is built from a configuration that makes no sense."""
MAX_JSON_BYTES = 2**26
"""Of a configuration, or of an index of weight files."""
FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
Model = TypeVar("Model", bound=ModelMixin)
Shape = tuple[int, ...]


BUILT_IN = {"shareverse-base": Path(__file__).with_name("base")}
"""Weights that lie in the repository, by their names."""
CHECKSUMS = "SHA256SUMS"
"""Of the files of built-in weights, beside them, as `sha256sum` writes it."""


class WeightsError(ValueError):
    """A folder without weights, or with other weights than its configuration describes: which, and what is wrong."""


def local_folder(name: str) -> Path:
    """Return the folder of that name, built-in weights, or the local copy of that model of the Hugging Face hub.

    Nothing is downloaded: without a local copy, WeightsError with the command that downloads it; also for built-in
    weights that are not what their checksums say.
    """
    if name in BUILT_IN:
        check_sums(BUILT_IN[name])
        return BUILT_IN[name]
    if Path(name).is_dir():
        return Path(name).resolve()
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        hub_name = name if HUB_NAME.fullmatch(name) else HUB_BASE
        raise WeightsError(
            f"{name!a} is no folder, and no model of that name was downloaded: run `hf download {hub_name}`, or name a "
            "folder"
        ) from error


def built_in_digest(name: str) -> str:
    """Return the SHA-256 of the checksums of built-in weights, "" for other names. WeightsError when there are none."""
    if name not in BUILT_IN:
        return ""
    try:
        return hashlib.sha256((BUILT_IN[name] / CHECKSUMS).read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(
            f"{BUILT_IN[name]} holds no {CHECKSUMS} ({error.strerror}): check the repository out again, or install the "
            "package again"
        ) from error


def check_sums(folder: Path) -> None:
    """Raise WeightsError for built-in weights that are missing, or not what their checksums say."""
    advice = "check the repository out again, or install the package again"
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
        if not lines:
            raise ValueError("it is empty")
        for line in lines:
            sha256, name = line.split(maxsplit=1)
            with open(folder / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise WeightsError(f"{folder / name} is not what {CHECKSUMS} says: {advice}")
    except (OSError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{folder} holds no weights of which {CHECKSUMS} speaks ({error}): {advice}") from error


def require_file(path: Path) -> None:
    """Raise WeightsError unless the path is a plain file: reading a pipe or a device may never end."""
    if not path.is_file():
        raise WeightsError(f"{path} cannot be read (there is no such file)")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, its class where it has none: PyTorch's go on with its C++ stack."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def impossible_number(value: Any, name: str = "") -> str:
    """Return name and value of a number in a configuration that is not finite or beyond 2**53, or nothing."""
    if isinstance(value, dict):
        return next(filter(None, (impossible_number(part, key) for key, part in value.items())), "")
    if isinstance(value, list):
        return next(filter(None, (impossible_number(part, name) for part in value)), "")
    wrong = isinstance(value, int | float) and not -(2**53) <= value <= 2**53
    return f"{name} {value!r:.40}" if wrong else ""


def read_json(path: Path) -> Any:
    """Return the value in a JSON file. WeightsError for a missing or damaged file."""
    require_file(path)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise WeightsError(f"{path} has more than {MAX_JSON_BYTES} bytes, which is no model's")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} holds no readable JSON ({first_line(error)})") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. WeightsError for a missing or damaged file."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise WeightsError(f"{path} holds a JSON {type(value).__name__} where an object belongs")
    return value


def weight_files(folder: Path, stem: str = WEIGHTS_STEM) -> list[Path]:
    """Return a model's safetensors files: a single one, or those in its index. WeightsError when there are none."""
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise WeightsError(f"{folder} holds no {stem}.safetensors")
    file_of_tensor = read_json_object(index).get("weight_map")
    if not isinstance(file_of_tensor, dict) or not all(isinstance(name, str) for name in file_of_tensor.values()):
        raise WeightsError(f"{index} does not say which file holds which weights")
    file_names = sorted(set(file_of_tensor.values()))
    if any(Path(name).name != name for name in file_names):
        raise WeightsError(f"{index} names files outside of its folder")
    return [folder / name for name in file_names]


def stored_shapes(folder: Path) -> dict[str, Shape]:
    """Return the shapes of a folder's tensors by name, read from the files' headers. WeightsError for a damaged
    file."""
    shapes: dict[str, Shape] = {}
    for file in weight_files(folder):
        require_file(file)
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - no mapping
                    tensor = opened.get_slice(name)
                    shapes[name] = tuple(tensor.get_shape())
                    if tensor.get_dtype() not in FLOAT_DTYPES:
                        raise WeightsError(f"{file} holds {name} as {tensor.get_dtype()}, which are no weights")
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{file} cannot be read ({first_line(error)})") from error
    return shapes


def stored_tensors(folder: Path) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    """Yield a folder's tensors by name, each with what reads it: the order is the same wherever the files are.

    A file is opened anew for each tensor, because what was read of an open one stays in memory. WeightsError for a
    damaged file.
    """
    for file in weight_files(folder):
        require_file(file)
        try:
            with safe_open(file, "pt") as opened:
                names = list(opened.keys())
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{file} cannot be read ({first_line(error)})") from error
        for name in names:
            yield name, functools.partial(read_tensor, file, name)


def read_tensor(file: Path, name: str) -> torch.Tensor:
    """Return one tensor of a file. WeightsError for a damaged file."""
    try:
        with safe_open(file, "pt") as opened:
            return opened.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file} cannot be read ({first_line(error)})") from error


def empty_model(kind: type[Model], folder: Path, tensors: int) -> tuple[Model, dict[str, Any]]:
    """Return the model that a folder's config.json describes, on the meta device (without memory), and the
    configuration. WeightsError when it describes none, or one with more layers than there are tensors."""
    config = read_json_object(folder / "config.json")
    class_name = config.get("_class_name", kind.__name__)
    if class_name != kind.__name__:
        raise WeightsError(f"{folder} holds a {class_name} where a {kind.__name__} belongs")
    if wrong := impossible_number(config):
        raise WeightsError(f"{folder / 'config.json'} says {wrong}, which is no number of a model")
    layers = config.get("num_layers", 0)
    if not isinstance(layers, int) or layers > tensors:
        raise WeightsError(f"{folder / 'config.json'} describes {layers} layers and there are {tensors} tensors")
    try:
        with torch.device("meta"):
            return kind.from_config(config), config
    except INVALID_CONFIG_ERRORS as error:
        raise WeightsError(f"{folder / 'config.json'} describes no {kind.__name__} ({first_line(error)})") from error


def check_folder(kind: type[Model], folder: Path) -> tuple[Model, dict[str, Any]]:
    """Return what `empty_model` does, after checking it against the headers of the weights beside it.

    WeightsError for the first tensor that is missing, unexpected or of the wrong shape.
    """
    stored = stored_shapes(folder)
    model, config = empty_model(kind, folder, len(stored))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() | stored.keys()):
        stored_shape, expected_shape = stored.get(name), expected.get(name)
        if stored_shape is None:
            raise WeightsError(f"{folder} lacks the tensor {name} that its config.json describes")
        if expected_shape is None:
            raise WeightsError(f"{folder} holds the tensor {name} that its config.json does not describe")
        if stored_shape != expected_shape:
            raise WeightsError(f"{folder} holds {name} as {stored_shape} where its config.json says {expected_shape}")
    return model, config


def load_weights(kind: type[Model], folder: Path, **options: Any) -> Model:
    """Return the model in a folder, float32 unless `options` (of `from_pretrained`) say otherwise.

    WeightsError when the folder is damaged, or holds weights that it does not describe or that are not finite.
    """
    check_folder(kind, folder)
    try:
        model = kind.from_pretrained(folder, use_safetensors=True, **options)
    except (OSError, SafetensorError, *INVALID_CONFIG_ERRORS) as error:
        raise WeightsError(f"{folder} cannot be loaded ({first_line(error)})") from error
    model.register_to_config(_name_or_path="")  # else a copy would tell where its original lay on this machine
    for name, tensor in model.state_dict().items():
        if not is_finite(tensor):
            raise WeightsError(f"{folder} holds {name} with values that are not finite")
    return model


def is_finite(tensor: torch.Tensor) -> bool:
    """Tell whether all values of a tensor are finite, without copying it."""
    return not tensor.numel() or bool(torch.linalg.vector_norm(tensor.detach(), math.inf).isfinite())
