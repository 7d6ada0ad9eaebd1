"""What the model made, to be looked at: recorded over generated, both agents, as a video and as a still."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from tasks.evaluation.score import Example
from tasks.recording.encode import VideoWriter

PAPER, INK, GREY = (255, 255, 255), (32, 36, 44), (110, 116, 128)
WIDTH_PX = 480
"""Least width of one agent's mosaic in a video."""
STILL_WIDTH_PX = 288
STILL_FRAMES = 5
GAP, BAR = 8, 26


def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib ships."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def pixels(video: torch.Tensor) -> np.ndarray:
    """Return [..., T, H, W, 3] uint8 of a video [..., 3, T, H, W] in [-1, 1]."""
    return ((video.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-4, -1).numpy()


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


def write_video(path: Path, frames: np.ndarray, fps: float, *, width: int = WIDTH_PX) -> None:
    """Write [T, H, W, 3] uint8 RGB as H.264, enlarged to `width` or more, with even sides."""
    first = enlarged(frames[0], width)
    height, wide = (side - side % 2 for side in first.shape[:2])
    writer = VideoWriter(path, wide, height, fps)
    try:
        for frame in frames:
            writer.write(enlarged(frame, width)[:height, :wide, ::-1])
    except BaseException:
        writer.abort()
        raise
    writer.close()


def place_of(example: Example) -> str:
    row = example.window.row
    return f"{row['town']} · {row['trajectory_type'].replace('_', ' ')} · {row['weather'].replace('_', ' ')}"


def rows_of(example: Example, steps: int) -> list[tuple[str, np.ndarray]]:
    """Return labels and pixels [A, T, H, W, 3] of what is shown above each other."""
    return [
        ("recorded", pixels(example.truth)),
        (f"generated, {steps} steps" if steps != 1 else "generated, 1 step", pixels(example.full_steps)),
        ("generated, 1 step (the mean of what is likely)", pixels(example.one_step)),
    ][: 2 if steps == 1 else 3]


def comparison(example: Example, steps: int) -> np.ndarray:
    """Return [T, H, W, 3] uint8: a row a source, a column an agent, labelled."""
    rows = rows_of(example, steps)
    agents, count = rows[0][1].shape[:2]
    height, width = enlarged(rows[0][1][0, 0], WIDTH_PX).shape[:2]
    size = (agents * (width + GAP) + GAP, BAR + len(rows) * (height + BAR) + GAP)
    small, bold = font(14), font(14, bold=True)
    frames = []
    for number in range(count):
        sheet = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(sheet)
        note = f"frame {number}" + (" (given)" if number == 0 else "")
        draw.text((GAP, 6), place_of(example), INK, bold)
        draw.text((size[0] - GAP, 6), note, GREY, small, anchor="ra")
        for line, (label, videos) in enumerate(rows):
            top = BAR + line * (height + BAR)
            for agent in range(agents):
                left = GAP + agent * (width + GAP)
                draw.text((left, top + 5), f"agent {agent}: {label}", INK, small)
                sheet.paste(tile(videos[agent, number], WIDTH_PX, example.views), (left, top + BAR))
        frames.append(np.asarray(sheet))
    return np.stack(frames)


def still(example: Example, steps: int) -> Image.Image:
    """Return a sheet that explains itself: a column a time, for each agent recorded over generated."""
    short = ["recorded", f"{steps} steps", "1 step"] if steps != 1 else ["recorded", "1 step"]
    rows = [(label, videos) for label, (_, videos) in zip(short, rows_of(example, steps), strict=True)]
    agents, count = rows[0][1].shape[:2]
    shown = np.linspace(0, count - 1, min(STILL_FRAMES, count)).round().astype(int)
    height, width = enlarged(rows[0][1][0, 0], STILL_WIDTH_PX).shape[:2]
    margin, head, foot, apart = 118, 74, 34, 22
    block = len(rows) * (height + GAP) - GAP
    size = (margin + len(shown) * (width + GAP) + GAP, head + agents * block + (agents - 1) * apart + foot)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 9), "Two cars, one world: what each sees, recorded and generated", INK, font(19, bold=True))
    draw.text((size[0] - GAP, 14), place_of(example), GREY, font(14), anchor="ra")
    for agent in range(agents):
        top = head + agent * (block + apart)
        draw.text((GAP, top + 10), f"agent {agent}", INK, font(16, bold=True), anchor="lm")
        for line, (label, videos) in enumerate(rows):
            middle = top + line * (height + GAP) + height / 2
            draw.text((margin - GAP, middle), label, GREY, font(13), anchor="rm")
            for column, number in enumerate(shown):
                left = margin + column * (width + GAP)
                if number or line == 0:  # frame 0 is given, not generated
                    picture = tile(videos[agent, number], STILL_WIDTH_PX, example.views)
                    sheet.paste(picture, (left, top + line * (height + GAP)))
    for column, number in enumerate(shown):
        note = "frame 0, given" if number == 0 else f"frame {number}"
        draw.text((margin + column * (width + GAP) + width / 2, head - 22), note, GREY, font(14), anchor="ma")
    views = "Each picture holds four views: front, rear over left, right. " if example.views == "four" else ""
    text = f"{views}A town never trained on. One sampling step gives the mean of what is likely."
    draw.text((GAP, size[1] - foot / 2), text, GREY, font(13), anchor="lm")
    return sheet


def write_pictures(examples: Sequence[Example], steps: int, fps: float, folder: Path) -> list[Path]:
    """Write a video an example and one still, of the first; return the videos' paths."""
    paths = []
    for example in examples:
        path = folder / f"{example.window.name.replace('+', '_')}.mp4"
        frames = comparison(example, steps)
        write_video(path, frames, fps, width=frames.shape[2])
        paths.append(path)
    if examples:
        still(examples[0], steps).save(folder / "still.png", optimize=True)
    return paths
