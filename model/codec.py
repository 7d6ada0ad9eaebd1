"""From pixels to latents and back: one interface to CogVideoX's VAE and to a linear codec of the same geometry.

`encode(video [N, 3, T, H, W] in [-1, 1]) -> (mean, logvar) [N, F, C, H/8, W/8]`, F = (T-1)/4 + 1;
`decode(latents) -> video`. Latents are scaled here and nowhere else, for training and inference alike (trap 17: scaled
twice or never).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook

from model.presets import SPATIAL_FACTOR, TEMPORAL_FACTOR, CodecConfig
from model.weights import WEIGHTS_STEM, WeightsError, check_folder, load_weights, local_folder

FIRST_BLOCK = 3 * SPATIAL_FACTOR**2
"""Number of values in an 8x8 block of frame 0."""
REST_BLOCK = TEMPORAL_FACTOR * FIRST_BLOCK
"""Number of values in an 8x8 block of four later frames."""
LINEAR_CODEC_FOLDER = "codec"
"""Where a fitted linear codec lies, beside the latents it made."""


class CodecError(ValueError):
    """A codec that cannot be loaded or used: which, why, and what to do."""


class Codec(Protocol):
    """The interface that encoding, training and the pipeline use; shapes as in the module's docstring."""

    def encode(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor: ...


def check_frames(frames: int) -> None:
    """Raise CodecError for a frame count that CogVideoX's VAE decodes wrongly without an error (trap 37: 8k+1 frames
    only)."""
    if frames != 1 and frames % 8 != 1:
        raise CodecError(f"a clip of {frames} frames cannot be encoded: take 8k+1 frames (9, 17, 25, 49, ...).")


def split_into_blocks(video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split [N, 3, T, H, W] into 8x8 blocks of frame 0 [N, 1, h, w, 192] and 4x8x8 blocks of the other frames
    [N, F-1, h, w, 768]."""
    side = SPATIAL_FACTOR
    n, c, frames, height, width = video.shape
    cells = video.reshape(n, c, frames, height // side, side, width // side, side)
    cells = cells.permute(0, 2, 3, 5, 4, 6, 1)  # N T h w 8 8 3
    rest = cells[:, 1:].unflatten(1, (-1, TEMPORAL_FACTOR)).permute(0, 1, 3, 4, 2, 5, 6, 7)  # N F-1 h w 4 8 8 3
    return cells[:, :1].flatten(4), rest.flatten(4)


def join_blocks(first: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Return the video of such blocks: the inverse of `split_into_blocks`."""
    side = SPATIAL_FACTOR
    n, _, rows, columns, _ = first.shape
    head = first.reshape(n, 1, rows, columns, side, side, 3)
    tail = rest.reshape(n, -1, rows, columns, TEMPORAL_FACTOR, side, side, 3).permute(0, 1, 4, 2, 3, 5, 6, 7)
    cells = torch.cat([head, tail.flatten(1, 2)], 1)  # N T h w 8 8 3
    return cells.permute(0, 6, 1, 2, 4, 3, 5).reshape(n, 3, -1, rows * side, columns * side)


def scale_chroma(video: torch.Tensor, weight: float) -> torch.Tensor:
    """Return [N, 3, T, H, W] with the colours' distance from grey multiplied by `weight`.

    1 / `weight` undoes it, and 1 leaves every bit as it is.
    """
    if weight == 1:
        return video
    grey = video.mean(1, keepdim=True)
    return grey + weight * (video - grey)


class LinearCodec(ModelMixin, ConfigMixin):
    """A fixed orthonormal basis per block: the principal components of the training clips (trap 38: small VAEs are
    worse).

    The first frame has one basis, the groups of four frames another. All coefficients are divided by one number that
    makes the mean square of the groups' coefficients 1, so latent errors are pixel errors up to that factor. There is
    no variance to sample: logvar is -30. With a `chroma_weight` above 1 errors of colour weigh that much more, both in
    the choice of components and in the latents. Most of an image's variance is brightness, and without the weight the
    colours of small objects are lost first.
    """

    @register_to_config
    def __init__(self, latent_channels: int = 48, chroma_weight: float = 1.0) -> None:
        super().__init__()
        if not isinstance(chroma_weight, int | float) or isinstance(chroma_weight, bool) or not chroma_weight > 0:
            raise ValueError(f"chroma_weight is {chroma_weight!r:.40}: give a number above 0")
        for part, size in (("first", FIRST_BLOCK), ("rest", REST_BLOCK)):
            self.register_buffer(f"{part}_mean", torch.zeros(size))
            self.register_buffer(f"{part}_basis", torch.zeros(size, latent_channels))
        self.register_buffer("scale", torch.ones(()))

    @classmethod
    def fit(cls, videos: Iterable[torch.Tensor], latent_channels: int, chroma_weight: float = 1.0) -> LinearCodec:
        """Return a codec fitted to videos [N, 3, T, H, W] in [-1, 1], the same for the same videos. CodecError when
        there are none."""
        codec = cls(latent_channels, chroma_weight)
        sizes = (FIRST_BLOCK, REST_BLOCK)
        sums = [torch.zeros(size, dtype=torch.float64) for size in sizes]
        squares = [torch.zeros(size, size, dtype=torch.float64) for size in sizes]
        counts = [0, 0]
        for video in videos:
            for part, blocks in enumerate(split_into_blocks(scale_chroma(video.double(), chroma_weight))):
                rows = blocks.reshape(-1, blocks.shape[-1])
                squares[part] += rows.T @ rows
                sums[part] += rows.sum(0)
                counts[part] += len(rows)
        energy = 0.0
        for part, name in enumerate(("first", "rest")):
            if not counts[part]:
                raise CodecError("the linear codec cannot be fitted: there are no training clips.")
            mean = sums[part] / counts[part]
            covariance = squares[part] / counts[part] - torch.outer(mean, mean)
            values, vectors = torch.linalg.eigh(covariance)
            basis = vectors[:, -latent_channels:].flip(1)
            signs = torch.sign(basis.gather(0, basis.abs().argmax(0, keepdim=True)))  # eigh's signs are arbitrary
            getattr(codec, f"{name}_mean").copy_(mean)
            getattr(codec, f"{name}_basis").copy_(basis * signs)
            energy = float(values[-latent_channels:].clamp_min(0).mean())
        codec.scale.fill_(max(energy, 1e-12) ** 0.5)
        return codec

    @apply_forward_hook
    def encode(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        check_frames(video.shape[2])
        first, rest = split_into_blocks(scale_chroma(video.to(self.scale.dtype), self.config.chroma_weight))
        coefficients = [(first - self.first_mean) @ self.first_basis, (rest - self.rest_mean) @ self.rest_basis]
        mean = (torch.cat(coefficients, 1) / self.scale).movedim(-1, 2).contiguous()
        return mean, torch.full_like(mean, -30.0)

    @apply_forward_hook
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        coefficients = latents.to(self.scale.dtype).movedim(2, -1) * self.scale
        first = coefficients[:, :1] @ self.first_basis.T + self.first_mean
        rest = coefficients[:, 1:] @ self.rest_basis.T + self.rest_mean
        return scale_chroma(join_blocks(first, rest), 1 / self.config.chroma_weight).clamp(-1, 1)


class VaeCodec:
    """CogVideoX's VAE behind the same interface, always with tiling, which changes latents (trap 22: tokens straddle
    views)."""

    tiling = "diffusers default tiles"

    def __init__(self, vae: AutoencoderKLCogVideoX) -> None:
        self.vae = vae.eval()
        self.vae.enable_tiling()
        scaling = vae.config.scaling_factor
        self.scaling = 1 / scaling if getattr(vae.config, "invert_scale_latents", False) else scaling

    @torch.no_grad()
    def encode(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        check_frames(video.shape[2])
        posterior = self.vae.encode(video.to(self.vae.dtype).contiguous()).latent_dist
        mean = posterior.mean.float() * self.scaling
        logvar = posterior.logvar.float() + 2 * torch.log(torch.tensor(self.scaling))
        return mean.transpose(1, 2).contiguous(), logvar.transpose(1, 2).contiguous()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        scaled = latents.transpose(1, 2).to(self.vae.dtype) / self.scaling
        # one video at a time: together they would take the memory of all
        videos = [self.vae.decode(video).sample.float().clamp(-1, 1) for video in scaled.contiguous().split(1)]
        return torch.cat(videos)


@torch.no_grad()
def encode_pictures(codec: Codec, pictures: torch.Tensor, frames: int = 1) -> torch.Tensor:
    """Encode pictures [B, A, 3, H, W] that stand still for so many frames; return [B, A, F, C, h, w]."""
    still = pictures.flatten(0, 1)[:, :, None].expand(-1, -1, frames, -1, -1)
    latents, _ = codec.encode(still)
    return latents.unflatten(0, pictures.shape[:2])


def codec_of(module: torch.nn.Module) -> Codec:
    """Return the codec that a pipeline's component is: the linear one itself, or CogVideoX's VAE in its wrapper."""
    return VaeCodec(module) if isinstance(module, AutoencoderKLCogVideoX) else module  # type: ignore[return-value]


def in_dtype(codec: Codec, dtype: torch.dtype) -> Codec:
    """Return the codec as it computes in a dtype: of CogVideoX's VAE a copy, the linear codec as it is."""
    if isinstance(codec, VaeCodec) and codec.vae.dtype != dtype:
        return VaeCodec(torch.nn.Module.to(copy.deepcopy(codec.vae), dtype))
    return codec


def module_of(codec: Codec) -> torch.nn.Module:
    """Return the component that stands for a codec in a pipeline: the inverse of `codec_of`."""
    return codec.vae if isinstance(codec, VaeCodec) else codec  # type: ignore[return-value]


@torch.no_grad()
def round_trip(codec: Codec, videos: torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return videos [N, A, 3, T, H, W], encoded and decoded, on the CPU: the best that a model can reach."""
    latents, _ = codec.encode(videos.flatten(0, 1).to(device))
    return codec.decode(latents.to(device)).float().cpu().view_as(videos)


def load_codec(config: CodecConfig, folder: Path | None = None) -> Codec:
    """Load the preset's codec: the linear one from `folder`/codec, the VAE from its diffusers folder.

    CodecError for one that is missing, damaged, or holds other weights than it describes.
    """
    if config.codec == "linear":
        return load_linear_codec(Path(folder or ".") / LINEAR_CODEC_FOLDER, config)
    try:
        return VaeCodec(load_weights(AutoencoderKLCogVideoX, vae_folder(config.codec_path)))
    except WeightsError as error:
        raise CodecError(vae_error(config.codec_path, error)) from error


def load_linear_codec(path: Path, config: CodecConfig) -> LinearCodec:
    """Load a fitted linear codec. CodecError for one that is missing, damaged, or not as the preset says."""
    if not path.is_dir():
        raise CodecError(f"{path} holds no fitted linear codec: encode the data set first.")
    again = f"remove {path.parent} and run train-shareverse again."
    try:
        codec = load_weights(LinearCodec, path, low_cpu_mem_usage=False)  # it is small, and True would warn
    except WeightsError as error:
        raise CodecError(f"{error}: {again}") from error
    if codec.config.latent_channels != config.latent_channels or not float(codec.scale) > 0:
        raise CodecError(
            f"{path} has {codec.config.latent_channels} channels of scale {float(codec.scale):g} and this preset "
            f"takes {config.latent_channels}: {again}"
        )
    return codec


def fitted_codec_folder(config: CodecConfig) -> Path:
    """Return where the codec lies that a preset names in `fitted_codec`. CodecError when there is none, or another one
    than the preset describes."""
    name = config.fitted_codec
    try:
        folder = local_folder(name) / LINEAR_CODEC_FOLDER
        codec, _ = check_folder(LinearCodec, folder)
    except WeightsError as error:
        raise CodecError(f"fitted_codec {name!r} cannot be loaded ({error}): name another folder.") from error
    for field in ("latent_channels", "chroma_weight"):
        if (actual := codec.config[field]) != (needed := getattr(config, field)):
            raise CodecError(
                f"fitted_codec {name!r} has {field} {actual} and this preset {needed}: "
                f"set {field} to {actual}, or name another folder."
            )
    return folder


def vae_error(name: str, error: WeightsError) -> str:
    return f"the VAE of {name!r} cannot be loaded ({error}): set codec_path to a folder with CogVideoX's VAE."


def check_vae(config: CodecConfig) -> None:
    """Raise CodecError for a VAE that would fail when encoding, from its configuration and the headers of its
    weights."""
    name = config.codec_path
    try:
        vae, _ = check_folder(AutoencoderKLCogVideoX, vae_folder(name))
    except WeightsError as error:
        raise CodecError(vae_error(name, error)) from error
    actual_and_needed = {
        "latent_channels": (vae.config.latent_channels, config.latent_channels),
        "temporal_compression_ratio": (vae.config.temporal_compression_ratio, TEMPORAL_FACTOR),
        "spatial compression": (2 ** (len(vae.config.block_out_channels) - 1), SPATIAL_FACTOR),
    }
    for field, (actual, needed) in actual_and_needed.items():
        if actual != needed:
            raise CodecError(
                f"the VAE of {name!r} has {field} {actual} and this preset needs {needed}: set codec_path to a folder "
                "with CogVideoX's VAE."
            )
    scaling = vae.config.scaling_factor
    if not 0 < scaling < math.inf:
        raise CodecError(f"the VAE of {name!r} has scaling_factor {scaling}: download it again.")


def empty_vae(config: CodecConfig) -> AutoencoderKLCogVideoX:
    """Return the preset's VAE on the meta device, without memory: CogVideoX-5B's where there is no local copy of it.

    CodecError for a local copy that is damaged.
    """
    try:
        folder = vae_folder(config.codec_path)
    except CodecError:
        with torch.device("meta"):
            return AutoencoderKLCogVideoX()  # diffusers' defaults are CogVideoX-5B's
    try:
        return check_folder(AutoencoderKLCogVideoX, folder)[0]
    except WeightsError as error:
        raise CodecError(vae_error(config.codec_path, error)) from error


def vae_folder(name: str) -> Path:
    """Return the folder of a VAE: a pipeline's `vae/`, or the folder itself.

    CodecError, with the command, where there is none.
    """
    try:
        folder = local_folder(name)
    except WeightsError as error:
        raise CodecError(f"codec_path {error}: set codec_path.") from error
    return folder if (folder / f"{WEIGHTS_STEM}.safetensors").exists() else folder / "vae"
