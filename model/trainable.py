"""Which weights are trained: all of them, what ShareVerse adds to its base, or that and low-rank updates of the base.

LoRA (Hu et al., arXiv 2106.09685) adds (alpha / rank) B A to the weight of a linear layer, B zero at the start. It is
the package peft's: its modules while training, its layout in files, which peft itself reads (`PeftModel`):

adapter_config.json          rank, alpha, and a pattern of the layers' names
adapter_model.safetensors    base_model.model.LAYER.lora_A.weight [rank, in], ...lora_B.weight [out, rank]
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model.presets import Preset, PresetError
from model.randomness import seeded
from model.transformer import ADDED_PREFIXES, ShareVerseTransformer3DModel
from model.weights import WeightsError, first_line, is_finite, read_json_object, require_file

ADAPTER_FOLDER = "adapter"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
NAME = "default"
"""Of the adapter among peft's modules."""
MATRIX = re.compile(rf"(.+)\.lora_(A|B)\.{NAME}\.weight")
STORED_MATRIX = re.compile(rf"{re.escape(PREFIX)}(.+)\.lora_(A|B)\.weight")
Weights = dict[str, torch.Tensor]


def is_added(name: str) -> bool:
    """Tell whether a parameter of that name is one that CogVideoX does not have."""
    return name.startswith(ADDED_PREFIXES)


def choose_trained(model: ShareVerseTransformer3DModel, preset: Preset) -> None:
    """Freeze what the preset does not train, and put LoRA's modules in, the same for the same `training.seed`.

    PresetError where peft is not installed.
    """
    training = preset.training
    if training.trainable == "all":
        return
    model.requires_grad_(False)
    if training.trainable == "lora":
        with seeded(training.seed):
            put_adapter(model, adapter_config(preset))
    for name, parameter in model.named_parameters():
        if is_added(name):
            parameter.requires_grad_(True)


def adapter_config(preset: Preset) -> dict[str, Any]:
    """Return the arguments of peft's `LoraConfig`; no layer of the cross-agent blocks, which are trained in full."""
    training = preset.training
    layers = "|".join(re.escape(target) for target in training.lora_targets)
    return {
        "r": training.lora_rank,
        "lora_alpha": training.lora_alpha,
        "target_modules": rf"transformer_blocks\.\d+\.(?:attn1\.)?(?:{layers})",
    }


def put_adapter(model: torch.nn.Module, config: dict[str, Any]) -> None:
    """Put LoRA's modules into a model. PresetError where peft is not installed."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise PresetError(
            f"LoRA needs the package peft ({first_line(error)}): run `pip install 'shareverse[lora]'`, or set "
            "trainable to all or added."
        ) from error
    inject_adapter_in_model(LoraConfig(**config), model, NAME)


def merged(weights: Weights, scale: float) -> Weights:
    """Return a state dict without LoRA's modules: their products, times `scale`, are added to the base's weights.

    Computed in float32; the sums have the matrices' dtype.
    """
    matrices = {match.groups(): value for name, value in weights.items() if (match := MATRIX.fullmatch(name))}
    plain: Weights = {}
    for name, value in weights.items():
        if MATRIX.fullmatch(name):
            continue
        layer, base, parameter = name.rpartition(".base_layer.")
        if parameter == "weight":
            down, up = matrices[layer, "A"], matrices[layer, "B"]
            value = (value.float() + scale * (up.float() @ down.float())).to(down.dtype)
        plain[f"{layer}.{parameter}" if base else name] = value
    return plain


def save_adapter(weights: Weights, preset: Preset, folder: Path) -> None:
    """Write LoRA's matrices, of a state dict that has them, in peft's layout."""
    from peft import LoraConfig

    folder.mkdir()
    config = LoraConfig(**adapter_config(preset), base_model_name_or_path=preset.transformer.base_model)
    config.inference_mode = True
    config.save_pretrained(str(folder))
    stored = {
        f"{PREFIX}{match[1]}.lora_{match[2]}.weight": value.contiguous()
        for name, value in weights.items()
        if (match := MATRIX.fullmatch(name))
    }
    save_file(stored, folder / WEIGHTS, {"format": "pt"})


def load_adapter(model: ShareVerseTransformer3DModel, folder: Path, *, merge: bool) -> None:
    """Add a stored adapter to a model: merged into its weights, or as modules of peft's.

    WeightsError for an adapter that is missing, damaged, or of another model; PresetError as `put_adapter`.
    """
    config, matrices = read_adapter(folder)
    rank, scale = config["r"], config["lora_alpha"] / config["r"]
    modules = dict(model.named_modules())
    for layer in sorted({layer for layer, _ in matrices}):
        linear, down, up = modules.get(layer), matrices.get((layer, "A")), matrices.get((layer, "B"))
        if (
            not isinstance(linear, torch.nn.Linear)
            or down is None
            or up is None
            or (down.shape, up.shape) != ((rank, linear.in_features), (linear.out_features, rank))
        ):
            raise WeightsError(f"{folder} holds an update of {layer} that does not fit the model beside it")
        if merge:
            weight = linear.weight
            update = scale * (up.float() @ down.float())
            weight.data = (weight.float() + update.to(weight.device)).to(weight.dtype)
    if merge:
        return
    put_adapter(model, {name: config[name] for name in ("r", "lora_alpha", "target_modules")})
    stored = {f"{layer}.lora_{part}.{NAME}.weight": value for (layer, part), value in matrices.items()}
    missing, unexpected = model.load_state_dict(stored, strict=False)
    if unexpected or any(MATRIX.fullmatch(name) for name in missing):
        raise WeightsError(f"{folder / CONFIG} names other layers than {WEIGHTS} holds")


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[tuple[str, str], torch.Tensor]]:
    """Return an adapter's configuration, and its matrices by layer and "A" or "B". WeightsError for a damaged one."""
    config, file = read_json_object(folder / CONFIG), folder / WEIGHTS
    rank, alpha, targets = (config.get(name) for name in ("r", "lora_alpha", "target_modules"))
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float) or not isinstance(targets, str | list):
        raise WeightsError(f"{folder / CONFIG} describes no LoRA adapter")
    require_file(file)
    try:
        stored = load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file} cannot be read ({first_line(error)})") from error
    matrices: dict[tuple[str, str], torch.Tensor] = {}
    for name, value in stored.items():
        match = STORED_MATRIX.fullmatch(name)
        if match is None or value.ndim != 2 or not value.is_floating_point() or not is_finite(value):
            raise WeightsError(f"{file} holds {name}, which is no matrix of a LoRA adapter")
        matrices[match[1], match[2]] = value
    if not matrices:
        raise WeightsError(f"{file} holds no matrices")
    return config, matrices
