"""Contact sheets of a data card: both agents' mosaics of each clip, at a few moments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.sharding.reader import ClipPair

MOMENTS = 4
"""Frames shown per clip, from its first to its last."""
CELL_WIDTH = 288
"""Width of a mosaic on the sheet, in pixels."""
GAP, MARGIN, HEADING, CAPTION = 6, 24, 40, 26
INK, QUIET = "#1a1a1a", "#6b6b6b"


def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size)


def contact_sheet(path: Path, town: str, clips: Sequence[ClipPair]) -> None:
    """Write a PNG with one row per clip and agent."""
    height, width = clips[0].videos.shape[2:4]
    cell = CELL_WIDTH, round(CELL_WIDTH * height / width)
    block = CAPTION + 2 * (cell[1] + GAP) + 18
    size = 2 * MARGIN + 22 + MOMENTS * (cell[0] + GAP) - GAP, MARGIN + HEADING + block * len(clips)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 4), town, INK, font(22, bold=True))
    note = "mosaics: front, rear over left, right"
    draw.text((size[0] - MARGIN, MARGIN + 4), note, QUIET, font(13), anchor="ra")
    for number, clip in enumerate(clips):
        draw_clip(sheet, draw, clip, MARGIN + HEADING + number * block, cell)
    sheet.save(path)


def draw_clip(sheet: Image.Image, draw: ImageDraw.ImageDraw, clip: ClipPair, top: int, cell: tuple[int, int]) -> None:
    """Draw a clip's block with its upper edge at `top`."""
    meta, left = clip.meta, MARGIN + 22
    name = f"{meta['type']}, {meta['weather']}".replace("_", " ")
    draw.text((MARGIN, top), name, INK, font(14, bold=True))
    draw.text((sheet.width - MARGIN, top + 1), clip.key, QUIET, font(12), anchor="ra")
    moments = np.linspace(0, clip.videos.shape[1] - 1, MOMENTS).round().astype(int)
    for agent in range(len(clip.videos)):
        y = top + CAPTION + agent * (cell[1] + GAP)
        label = Image.new("RGB", (cell[1], 18), "white")
        ImageDraw.Draw(label).text((cell[1] // 2, 2), f"agent {agent}", QUIET, font(12), anchor="ma")
        sheet.paste(label.rotate(90, expand=True), (MARGIN - 2, y))
        for column, moment in enumerate(moments):
            picture = Image.fromarray(clip.videos[agent, moment]).resize(cell, Image.Resampling.LANCZOS)
            x = left + column * (cell[0] + GAP)
            sheet.paste(picture, (x, y))
            if agent == 0:
                text = f"{clip.cameras.time_s[moment]:.1f} s"
                draw.text((x + 6, y + cell[1] - 6), text, "white", font(12), "ls", stroke_width=2, stroke_fill=INK)
