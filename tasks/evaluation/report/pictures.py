"""What the model made, to be looked at: both agents, recorded over generated, as videos and as a still."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from tasks.evaluation.scoring.windows import Window
from tasks.recording.encode import CRF, VideoWriter

PAPER, INK, GREY = (255, 255, 255), (32, 36, 44), (110, 116, 128)
WIDTH_PX = 480
"""Least width of one agent's mosaic in a video."""
CLIP_WIDTH_PX = 192
"""Least width of one agent's mosaic in a clip on the page."""
EDGE = 3
"""Rows of a clip on either side of the line between two agents that are painted white."""
SMALL_CRF = 23
"""Of x264, for videos that are embedded or sent to MLflow."""
STILL_WIDTH_PX = 288
STILL_FRAMES = 5
GAP, BAR = 8, 26
RECORDED = "recorded"


@dataclass(frozen=True)
class Film:
    """One window as everybody has it, to be looked at side by side."""

    window: Window
    worst: bool
    """Chosen because the model is worst here; else because the agents see each other largest."""
    sources: dict[str, np.ndarray]
    """Videos [A, T, H, W, 3] uint8 by what they are, RECORDED first."""
    psnr_db: dict[str, float]
    """This window's PSNR by source."""
    views: str = "four"
    """"four": mosaics; "front": single views."""


def place_of(window: Window) -> str:
    """Return the town, the type and the weather in words."""
    row = window.row
    return f"{row['town']} · {row['trajectory_type'].replace('_', ' ')} · {row['weather'].replace('_', ' ')}"


def pixels(video: torch.Tensor) -> np.ndarray:
    """Return [..., T, H, W, 3] uint8 of a video [..., 3, T, H, W] in [-1, 1]."""
    return ((video.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-4, -1).numpy()


def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib ships."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def enlarged(frame: np.ndarray, width: int) -> np.ndarray:
    """Repeat pixels [H, W, 3] a whole number of times, until the frame is `width` wide or more."""
    times = max(1, -(-width // frame.shape[1]))
    return frame.repeat(times, 0).repeat(times, 1)


def tile(frame: np.ndarray, width: int, views: str) -> Image.Image:
    """Return a frame enlarged, with a thin white line between the views of a mosaic."""
    large = enlarged(frame, width).copy()
    if views == "four":
        down, across = large.shape[0] // 2, large.shape[1] // 2
        large[down - 1 : down + 1] = large[:, across - 1 : across + 1] = 255
    return Image.fromarray(large)


def write_video(path: Path, frames: np.ndarray, fps: float, *, width: int = WIDTH_PX, crf: int = CRF) -> None:
    """Write [T, H, W, 3] uint8 RGB as H.264, enlarged to `width` or more, with even sides."""
    first = enlarged(frames[0], width)
    height, wide = (side - side % 2 for side in first.shape[:2])
    writer = VideoWriter(path, wide, height, fps, crf=crf)
    try:
        for frame in frames:
            writer.write(enlarged(frame, width)[:height, :wide, ::-1])
    except BaseException:
        writer.abort()
        raise
    writer.close()


def stacked(videos: np.ndarray, views: str) -> np.ndarray:
    """Return [T, H, W, 3] of videos [A, T, h, w, 3]: enlarged, the agents above each other, equally high."""
    tiles = np.array([[np.asarray(tile(frame, CLIP_WIDTH_PX, views)) for frame in video] for video in videos])
    tiles[:-1, :, -EDGE:] = tiles[1:, :, :EDGE] = 255
    return np.concatenate(tiles, 1)


def jpeg(frame: np.ndarray) -> bytes:
    """Return a frame [H, W, 3] uint8 RGB as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def comparison(film: Film) -> np.ndarray:
    """Return [T, H, W, 3] uint8: one row per source, one column per agent, labelled."""
    agents, count = next(iter(film.sources.values())).shape[:2]
    height, width = enlarged(next(iter(film.sources.values()))[0, 0], WIDTH_PX).shape[:2]
    size = (agents * (width + GAP) + GAP, BAR + len(film.sources) * (height + BAR) + GAP)
    small, bold = font(14), font(14, bold=True)
    frames = []
    for number in range(count):
        sheet = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(sheet)
        note = f"frame {number}" + (" (given)" if number == 0 else "")
        draw.text((GAP, 6), place_of(film.window), INK, bold)
        draw.text((size[0] - GAP, 6), note, GREY, small, anchor="ra")
        for line, (label, videos) in enumerate(film.sources.items()):
            top = BAR + line * (height + BAR)
            for agent in range(agents):
                left = GAP + agent * (width + GAP)
                draw.text((left, top + 5), f"agent {agent}: {label}", INK, small)
                sheet.paste(tile(videos[agent, number], WIDTH_PX, film.views), (left, top + BAR))
        frames.append(np.asarray(sheet))
    return np.stack(frames)


def still(film: Film) -> Image.Image:
    """Return a sheet that explains itself: one column per time, for each agent recorded over generated."""
    rows = {label: videos for label, videos in film.sources.items() if not label.startswith("error")}
    agents, count = next(iter(rows.values())).shape[:2]
    shown = np.linspace(0, count - 1, min(STILL_FRAMES, count)).round().astype(int)
    height, width = enlarged(next(iter(rows.values()))[0, 0], STILL_WIDTH_PX).shape[:2]
    margin, head, foot, apart = 132, 74, 34, 22
    block = len(rows) * (height + GAP) - GAP
    size = (margin + len(shown) * (width + GAP) + GAP, head + agents * block + (agents - 1) * apart + foot)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 9), "Two cars, one world: what each sees, recorded and generated", INK, font(19, bold=True))
    draw.text((size[0] - GAP, 14), place_of(film.window), GREY, font(14), anchor="ra")
    for agent in range(agents):
        top = head + agent * (block + apart)
        draw.text((GAP, top + 10), f"agent {agent}", INK, font(16, bold=True), anchor="lm")
        for line, (label, videos) in enumerate(rows.items()):
            middle = top + line * (height + GAP) + height / 2
            draw.text((margin - GAP, middle), label.replace(", ", "\n"), GREY, font(13), anchor="rm", align="right")
            for column, number in enumerate(shown):
                left = margin + column * (width + GAP)
                if number or line == 0:  # frame 0 is given, not generated
                    picture = tile(videos[agent, number], STILL_WIDTH_PX, film.views)
                    sheet.paste(picture, (left, top + line * (height + GAP)))
    for column, number in enumerate(shown):
        note = "frame 0, given" if number == 0 else f"frame {number}"
        draw.text((margin + column * (width + GAP) + width / 2, head - 22), note, GREY, font(14), anchor="ma")
    views = "Each picture holds four views: front, rear over left, right. " if film.views == "four" else ""
    text = f"{views}A town never trained on. One sampling step gives the mean of what is likely."
    draw.text((GAP, size[1] - foot / 2), text, GREY, font(13), anchor="lm")
    return sheet


def write_pictures(films: Sequence[Film], fps: float, folder: Path) -> None:
    """Write a labelled video a film, and one still, of the first that was not chosen for being bad."""
    for film in films:
        frames = comparison(film)
        write_video(folder / f"{file_name(film)}.mp4", frames, fps, width=frames.shape[2], crf=SMALL_CRF)
    for film in [film for film in films if not film.worst][:1]:
        still(film).save(folder / "still.png", optimize=True)


def file_name(film: Film) -> str:
    return ("worst_" if film.worst else "") + film.window.name.replace("+", "_")
