"""The base of a preset: where it lies, whether it fits, and the transformer that is built on it.

The transformer is laid out on the meta device and filled from the base's files one tensor at a time, so that it exists
once, in the dtype and on the device that it is wanted on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel

from model.positions import LEARNED, config_at_size, resized_positions
from model.presets import Preset, PresetError
from model.randomness import seeded
from model.transformer import ShareVerseTransformer3DModel
from model.weights import WeightsError, check_folder, is_finite, local_folder, read_json_object, stored_tensors

LEARNED_WITH = "learned_with.json"
"""In the folder of a base of our own: the fields of LEARNED_FIELDS and their values in its training."""
LEARNED_FIELDS = (
    "camera", "raymap_axes", "raymap_unit_m", "raymap_centroid", "prediction", "first_frame", "image_condition",
)  # fmt: skip
"""Fields of a preset whose other values give the same weights another meaning, without an error."""
Send = Callable[[torch.Tensor], None]


def base_folder(name: str) -> Path:
    """Return the folder of a base model's transformer: a pipeline's `transformer/`, or the folder itself. PresetError
    when there is no local copy."""
    try:
        folder = local_folder(name)
    except WeightsError as error:
        raise PresetError(f"base_model {error}.") from error
    return folder if (folder / "config.json").exists() else folder / "transformer"


def has_local_copy(name: str) -> bool:
    """Tell whether a base model is on this machine."""
    try:
        base_folder(name)
    except PresetError:
        return False
    return True


def is_own_base(name: str) -> bool:
    """Tell whether a base model is of our class, so that it knows its cameras. No where it cannot be read, of which
    `check_base` says why."""
    try:
        return base_class(base_folder(name)) is ShareVerseTransformer3DModel
    except (PresetError, WeightsError):
        return False


def base_class(folder: Path) -> type[CogVideoXTransformer3DModel]:
    """Return the class of a base model: CogVideoX's, or ours for a base that knows its cameras. WeightsError when its
    configuration cannot be read."""
    name = read_json_object(folder / "config.json").get("_class_name")
    return (
        ShareVerseTransformer3DModel if name == ShareVerseTransformer3DModel.__name__ else CogVideoXTransformer3DModel
    )


def base_model_error(name: str, error: WeightsError) -> str:
    return f"base_model {name!r} cannot be loaded: {error}; download it again, or name another folder."


def check_base(preset: Preset) -> CogVideoXTransformer3DModel:
    """Return the preset's base model on the meta device (without memory), checked by its configuration and its weights'
    headers.

    PresetError for one that would fail in the first step, or silently compute something else (trap 15: learned
    positions; trap 26: CogVideoX 1.5 differs; a base of our own with another target).
    """
    name = preset.transformer.base_model
    folder = base_folder(name)
    try:
        config = read_json_object(folder / "config.json")
        if config.get("patch_size_t") is not None or config.get("ofs_embed_dim") is not None:
            raise PresetError(
                f"base_model {name!r} is a CogVideoX 1.5: take CogVideoX-5B-I2V, ShareVerse is built on it."
            )
        base, _ = check_folder(base_class(folder), folder)
    except WeightsError as error:
        raise PresetError(base_model_error(name, error)) from error
    _, channels, height, width = preset.latent_shape
    advice = "change the preset, positions to interpolated for example"
    needed_config = {
        "in_channels": 2 * channels,  # noisy latents and the image condition
        "patch_size": preset.transformer.patch_size,
        "text_embed_dim": preset.transformer.text_embed_dim,
        "max_text_seq_length": preset.transformer.text_tokens,
    }
    own_size = {"sample_height": height, "sample_width": width, "sample_frames": preset.video.frames}
    if preset.transformer.positions == "learned":
        needed_config |= own_size
    for field, needed in needed_config.items():
        if (actual := getattr(base.config, field)) != needed:
            raise PresetError(
                f"base_model {name!r} has {field} {actual} and this preset's video and codec need {needed}: name "
                f"another base_model, or {advice if field in own_size else 'change the preset'}."
            )
    check_learned_with(preset, folder)
    return base


def check_learned_with(preset: Preset, folder: Path) -> None:
    """Raise PresetError when a base of our own learned with other inputs or another target than the preset gives it."""
    if not (folder / LEARNED_WITH).exists():
        return
    name, fields = preset.transformer.base_model, preset.flat()
    try:
        learned_with = read_json_object(folder / LEARNED_WITH)
    except WeightsError as error:
        raise PresetError(base_model_error(name, error)) from error
    for field, value in learned_with.items():
        if (actual := fields.get(field)) != value:
            raise PresetError(
                f"base_model {name!r} learned with {field} {value!r} and this preset has {actual!r}: set {field} to "
                f"{value!r}, or name another base_model."
            )


def empty_on_base(preset: Preset) -> ShareVerseTransformer3DModel:
    """Return the preset's transformer on the meta device, as its base describes it. PresetError for a base that cannot
    be loaded or does not fit."""
    return laid_out(preset, check_base(preset))


def laid_out(preset: Preset, base: CogVideoXTransformer3DModel) -> ShareVerseTransformer3DModel:
    """Return the preset's transformer on the meta device. PresetError for a base that does not fit."""
    config = {name: value for name, value in dict(base.config).items() if not name.startswith("_")}
    config = config_at_size(preset, config)
    with torch.device("meta"):
        model = ShareVerseTransformer3DModel(**(config | preset.cross_agent_options))
    try:
        model.check_base_weights(base.state_dict().keys() - unused(preset))
    except ValueError as error:
        raise PresetError(
            f"base_model {preset.transformer.base_model!r} has other cross-agent blocks than this preset: {error}; "
            "change the preset, or name another base_model."
        ) from error
    return model


def transformer_on_base(
    preset: Preset, dtype: torch.dtype, device: torch.device, send: Send | None = None, *, reads: bool = True
) -> ShareVerseTransformer3DModel:
    """Return the preset's transformer with its base's weights, ready to learn the exchange between agents.

    Where several processes build it together, one of them `reads`, and all of them call `send` with each tensor of the
    base, which fills it where it was not read. What the base does not have is drawn with `training.seed`, the same
    everywhere. PresetError when the base cannot be loaded or does not fit.
    """
    base = check_base(preset)
    model = torch.nn.Module.to(laid_out(preset, base), dtype).to_empty(device=device)
    model.compute_positions()
    name = preset.transformer.base_model
    try:
        stored = fill(model, base, base_folder(name), send, reads)
    except WeightsError as error:
        raise PresetError(base_model_error(name, error)) from error
    with seeded(preset.training.seed):
        model.init_added_modules(stored)
    return model


def unused(preset: Preset) -> set[str]:
    """Return the names of the base's tensors that the preset's transformer does without."""
    return {LEARNED} if preset.transformer.positions == "dropped" else set()


@torch.no_grad()
def fill(
    model: ShareVerseTransformer3DModel,
    base: CogVideoXTransformer3DModel,
    folder: Path,
    send: Send | None,
    reads: bool,
) -> set[str]:
    """Copy a base's tensors from its folder into a model one after the other; return their names.

    WeightsError for a damaged file, or values that are not finite.
    """
    targets, names = model.state_dict(), set()
    for name, read in stored_tensors(folder):
        if name not in targets:  # positions that are dropped
            continue
        if reads:
            tensor = read()
            if not is_finite(tensor):
                raise WeightsError(f"{folder} holds {name} with values that are not finite")
            targets[name].copy_(resized_positions(tensor, base.config, model.config) if name == LEARNED else tensor)
        if send is not None:
            send(targets[name])
        names.add(name)
    return names
