"""First frames from pictures that a person has: files, PIL images, arrays, tensors; mosaics or single views."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from model import mosaic
from model.camera import VIEWS

ASPECT_TOLERANCE = 0.02
"""Share by which a picture's aspect ratio may differ from the model's."""
Picture = Any
"""A path, a PIL image, [H, W, 3] uint8 or float in [0, 1] as a NumPy array, [3, H, W] of the same as a tensor."""


class PictureError(ValueError):
    """A picture that cannot be a first frame: which agent's, what is wrong, what to give."""


def first_frames(pictures: Sequence[Any], height: int, width: int, views: str) -> torch.Tensor:
    """Return first frames [A, 3, height, width] float32 in [-1, 1] of one picture per agent.

    For a model of four `views`, a picture is a mosaic (front and rear above left and right), or four pictures, in that
    order or by these names. For the "front" view it is that view, alone or by name. Other sizes are resized, view by
    view (trap 22: tokens straddle views), where the aspect ratio is the model's to 2 %. PictureError else.
    """
    if isinstance(pictures, str | bytes | Mapping) or not isinstance(pictures, Sequence) or not len(pictures):
        raise PictureError(f"pictures is a {type(pictures).__name__}: give a list with one picture per agent.")
    return torch.stack([first_frame(given, height, width, views, agent) for agent, given in enumerate(pictures)])


def first_frame(given: Any, height: int, width: int, views: str, agent: int) -> torch.Tensor:
    """Return one agent's first frame [3, height, width] in [-1, 1]."""
    who = f"the picture of agent {agent}"
    four = views == "four"
    names = VIEWS if four else VIEWS[:1]
    size = (height // 2, width // 2) if four else (height, width)
    if isinstance(given, Mapping):
        if missing := [name for name in names if name not in given]:
            raise PictureError(f"{who} has no view {missing[0]!r}: give {', '.join(names)}.")
        given = [given[name] for name in names]
    if isinstance(given, list | tuple):
        if len(given) != len(names):
            raise PictureError(
                f"{who} is a list of {len(given)}: give {len(names)} ({', '.join(names)}), or one picture."
            )
        parts = [
            pixels_of(part, f"the {name} picture of agent {agent}") for part, name in zip(given, names, strict=True)
        ]
    else:
        whole = pixels_of(given, who)
        check_aspect(whole, height, width, who)
        if four and (whole.shape[-2] % 2 or whole.shape[-1] % 2):
            raise PictureError(f"{who} is {size_of(whole)} pixels: a mosaic of four views has even sides.")
        parts = list(mosaic.split(whole)) if four else [whole]
    for part, name in zip(parts, names, strict=True):
        check_aspect(part, *size, f"the {name} picture of agent {agent}")
    frame = mosaic.assemble(torch.stack([resize(part, *size) for part in parts]))
    return frame.div(127.5).sub(1)


def size_of(pixels: torch.Tensor) -> str:
    return f"{pixels.shape[-1]}x{pixels.shape[-2]}"


def check_aspect(pixels: torch.Tensor, height: int, width: int, who: str) -> None:
    """Raise PictureError for pixels [3, h, w] of another aspect ratio than width:height."""
    ratio = pixels.shape[-1] / pixels.shape[-2] / (width / height)
    if not abs(ratio - 1) <= ASPECT_TOLERANCE:
        raise PictureError(f"{who} is {size_of(pixels)} pixels and the model takes {width}x{height}: crop it first.")


def resize(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return pixels [3, h, w] in another size: shrunk by area averaging as training clips are, enlarged bilinearly."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    shrink = pixels.shape[-2] >= height and pixels.shape[-1] >= width
    options: dict[str, Any] = {"mode": "area"} if shrink else {"mode": "bilinear", "align_corners": False}
    return F.interpolate(pixels[None], (height, width), **options)[0]


def pixels_of(picture: Picture, who: str) -> torch.Tensor:
    """Return pixels [3, h, w] float32 from 0 to 255. PictureError for what is no colour picture, or out of range."""
    if isinstance(picture, str | os.PathLike):
        picture = opened(picture, who)
    if isinstance(picture, Image.Image):
        picture = np.array(picture.convert("RGB"))
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[-1] != 3:
            raise PictureError(f"{who} is an array of shape {picture.shape}: give [height, width, 3].")
        picture = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    elif not isinstance(picture, torch.Tensor):
        raise PictureError(f"{who} is a {type(picture).__name__}: give a path, a PIL image, an array or a tensor.")
    elif picture.ndim != 3 or picture.shape[0] != 3:
        raise PictureError(f"{who} is a tensor of shape {tuple(picture.shape)}: give [3, height, width].")
    if not picture.numel():
        raise PictureError(f"{who} has no pixels.")
    if picture.dtype == torch.uint8:
        return picture.float().cpu()
    if not picture.is_floating_point():
        raise PictureError(f"{who} holds {picture.dtype}: give uint8, or floats from 0 to 1.")
    pixels = picture.detach().float().cpu()
    if not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise PictureError(f"{who} has values outside of 0 to 1, or none: give uint8, or floats from 0 to 1.")
    return pixels * 255


def opened(path: str | os.PathLike[str], who: str) -> Image.Image:
    """Return a picture file's RGB image. PictureError for one that cannot be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(
            f"{who}, {str(path)!a}, cannot be read ({type(error).__name__}): give a PNG or JPEG."
        ) from error
