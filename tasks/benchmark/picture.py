"""A picture that explains the hidden fact, and what exchange does about it, to somebody who has not read the paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from model.camera import VIEWS
from tasks.benchmark.detector import CANNOT_TELL
from tasks.benchmark.scenes import BenchScenes
from tasks.benchmark.score import Outcome
from tasks.benchmark.warping import views_of
from tasks.evaluation.report.pictures import GAP, GREY, INK, PAPER, enlarged, font, pixels, tile

ROWS = 3
CELL_PX = 240
"""Least width of a picture in a column."""
SEEN_CHANGE = 0.2
"""Least change of a value in [-1, 1] for a pixel of the partner's first frame to show the fact."""
HEAD, LINE, FOOT, MARGIN = 118, 25, 64, 20
GREEN, RED = (22, 128, 60), (190, 40, 40)
WHAT = {
    "appearance": "the colour of something",
    "binding": "which of two things has which colour",
    "trajectory": "which way car B is about to drive",
}
COLUMNS = (
    ("Car A at the start", "four cameras: the fact is hidden"),
    ("Car B at the start", "it sees the fact (framed)"),
    ("A, later: recorded", "where the fact comes into view"),
    ("A, later: generated", "the cars exchange what they know"),
    ("A, later: generated", "no exchange, else the same"),
    ("Car B, fact changed", "A's start stays the same"),
    ("A, later: generated", "exchange, from the changed B"),
)
CHANGED = 5
"""The first column that belongs to the changed scene."""

Place = tuple[int, int]
Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class Sight:
    """Where a scene's observer sees the fact largest."""

    frame: int
    view: int
    box: Rectangle
    """Left, top, right, low, in pixels of the view; right and low are past the end."""
    pixels: int


def box_of(mask: np.ndarray) -> Rectangle:
    """Return the rectangle round a mask [h, w] that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def sight_of(scenes: BenchScenes, place: int) -> Sight | None:
    """Return the frame and view that show the fact largest, None where it never shows."""
    shown = views_of(scenes.masks[place].any(0)[:, None], scenes.c2w.shape[2])[:, :, 0].numpy()  # T V h w
    sizes = shown.sum((2, 3))
    frame, view = np.unravel_index(sizes.argmax(), sizes.shape)
    if not sizes[frame, view]:
        return None
    return Sight(int(frame), int(view), box_of(shown[frame, view]), int(sizes[frame, view]))


def chosen(scenes: BenchScenes, count: int = ROWS) -> list[int]:
    """Return the scenes to show: those that show the fact largest, of different labels first, whatever came out."""
    sights = [(place, sight_of(scenes, place)) for place in range(len(scenes)) if scenes.informative[place]]
    sizes = {place: sight.pixels for place, sight in sights if sight is not None}
    order = sorted(sizes, key=lambda place: -sizes[place])
    turn: dict[int, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for place in order:
        label = int(scenes.labels[place, 0])
        ranked.append((turn.get(label, 0), len(ranked), place))
        turn[label] = turn.get(label, 0) + 1
    return [place for *_, place in sorted(ranked)[:count]]


def explaining_picture(scenes: BenchScenes, exchange: Outcome, without: Outcome, count: int = ROWS) -> Image.Image:
    """Return a sheet, one scene per row: what each car sees at the start, what A sees later, recorded and generated.

    `exchange` and `without` are outcomes on these scenes of an arm with cross-agent exchange and of one without.
    """
    places = chosen(scenes, count)
    height, width = cell_size(scenes)
    lefts = [MARGIN + column * (width + GAP) + (column >= CHANGED) * 2 * MARGIN for column in range(len(COLUMNS))]
    size = (lefts[-1] + width + MARGIN, HEAD + 48 + len(places) * (height + LINE + GAP) + FOOT)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    write_head(draw, scenes, lefts)
    for number, place in enumerate(places):
        top = HEAD + 48 + number * (height + LINE + GAP)
        for left, (picture, note, colour) in zip(lefts, cells(scenes, exchange, without, place), strict=True):
            sheet.paste(picture, (left, top))
            draw.text((left + width / 2, top + height + 4), note, colour, font(13), anchor="ma")
    middle = (lefts[CHANGED - 1] + width + lefts[CHANGED]) // 2
    draw.line((middle, HEAD - 22, middle, size[1] - FOOT), (205, 209, 216), 2)
    write_foot(draw, scenes, exchange, without, size)
    return sheet


def cell_size(scenes: BenchScenes) -> Place:
    """Return height and width of a picture: a mosaic's and a view's, enlarged, are equal up to a pixel."""
    mosaic = enlarged(pixels(scenes.first[:1, 0][:, :, None])[0, 0], CELL_PX)
    return mosaic.shape[0], mosaic.shape[1]


def write_head(draw: ImageDraw.ImageDraw, scenes: BenchScenes, lefts: list[int]) -> None:
    draw.text((MARGIN, 14), "Do two cars' videos show one world?", INK, font(24, bold=True))
    text = (
        f"At the start only car B can know one fact: {WHAT[scenes.task]}. Nothing that car A is given depends on it, "
        "but A's cameras see it later.\nA model that generates both cars' videos can paint it right in A's only if B's "
        "side tells A's; without that exchange it has to guess."
    )
    draw.multiline_text((MARGIN, 48), text, GREY, font(15), spacing=5)
    for left, (title, note) in zip(lefts, columns_of(scenes), strict=True):
        draw.text((left, HEAD), title, INK, font(15, bold=True))
        draw.text((left, HEAD + 21), note, GREY, font(13))


def columns_of(scenes: BenchScenes) -> list[tuple[str, str]]:
    """Return title and note of each column."""
    columns = list(COLUMNS)
    if scenes.task == "trajectory":  # what car B knows is its own path, which no first frame shows
        columns[0], columns[1] = ("Car A at the start", "four cameras"), ("Car B at the start", "it knows its path")
        columns[CHANGED] = ("Car B, path changed", "both starts stay the same")
    return columns


def cells(
    scenes: BenchScenes, exchange: Outcome, without: Outcome, place: int
) -> list[tuple[Image.Image, str, tuple[int, int, int]]]:
    """Return picture, note and the note's colour of each column of a scene."""
    sight = sight_of(scenes, place)
    assert sight is not None  # `chosen` takes none without
    observer, partner = scenes.observer, scenes.partner
    when = f"{VIEWS[sight.view]} camera, frame {sight.frame}"
    own, new = (int(label) for label in scenes.labels[place])
    made = int(exchange.read[place, 0]), int(without.read[place, 0])
    return [
        (start_cell(scenes, scenes.first[place, observer], None), "", GREY),
        (start_cell(scenes, scenes.first[place, partner], changed_box(scenes, place)), "", GREY),
        (later_cell(scenes, scenes.truth[place, observer], sight), when, GREY),
        (later_cell(scenes, exchange.videos[place], sight), *verdict(made[0], {own: "right"}, "wrong")),
        (later_cell(scenes, without.videos[place], sight), *verdict(made[1], {own: "right"}, "wrong")),
        (start_cell(scenes, scenes.twin_first[place, partner], changed_box(scenes, place)), "", GREY),
        (later_cell(scenes, exchange.counterfactual_videos[place], sight),
         *verdict(int(exchange.counterfactual[place]), {new: "right: follows the change"},
                  "wrong: keeps the old" if int(exchange.counterfactual[place]) == own else "wrong")),
    ]  # fmt: skip


def verdict(label: int, good: dict[int, str], bad: str) -> tuple[str, tuple[int, int, int]]:
    """Return the detector's reading in words, and their colour."""
    if label == CANNOT_TELL:
        return "undecided: no label is near", GREY
    return (good[label], GREEN) if label in good else (bad, RED)


def start_cell(scenes: BenchScenes, frame: torch.Tensor, box: tuple[int, Rectangle] | None) -> Image.Image:
    """Return a first frame [3, H, W], enlarged, with a frame round a rectangle of one of its views."""
    views = "four" if scenes.c2w.shape[2] == 4 else "front"
    picture = tile(pixels(frame[:, None])[0], CELL_PX, views)
    if box is not None:
        view, (left, top, right, low) = box
        across, down = (view % 2, view // 2) if views == "four" else (0, 0)
        width, height = frame.shape[2] // 2, frame.shape[1] // 2
        outline(picture, (left + across * width, top + down * height, right + across * width, low + down * height),
                picture.width // frame.shape[2])  # fmt: skip
    return picture


def later_cell(scenes: BenchScenes, video: torch.Tensor, sight: Sight) -> Image.Image:
    """Return one view of a video [3, T, H, W] at the time of a sight, as large as a first frame, the fact framed."""
    height, width = cell_size(scenes)
    view = views_of(video[:, sight.frame], scenes.c2w.shape[2])[sight.view]
    picture = Image.fromarray(pixels(view[:, None])[0]).resize((width, height), Image.Resampling.NEAREST)
    outline(picture, sight.box, width // view.shape[2])
    return picture


def changed_box(scenes: BenchScenes, place: int) -> tuple[int, Rectangle] | None:
    """Return the view of the partner's first frame that shows the fact, and where; None where none does."""
    change = scenes.first[place, scenes.partner] - scenes.twin_first[place, scenes.partner]
    shown = views_of(change.abs().amax(0, keepdim=True) > SEEN_CHANGE, scenes.c2w.shape[2])[:, 0].numpy()  # V h w
    view = int(shown.sum((1, 2)).argmax())
    return (view, box_of(shown[view])) if shown[view].any() else None


def outline(picture: Image.Image, box: Rectangle, scale: int) -> None:
    """Draw a white line in a dark one just outside a rectangle of pixels that are `scale` wide in the picture."""
    left, top, right, low = (side * scale for side in box)
    draw = ImageDraw.Draw(picture)
    for reach, colour in ((4, (0, 0, 0)), (3, (255, 255, 255)), (2, (255, 255, 255)), (1, (0, 0, 0))):
        corners = max(0, left - reach), max(0, top - reach)
        draw.rectangle((*corners, min(picture.width - 1, right - 1 + reach), min(picture.height - 1, low - 1 + reach)),
                       outline=colour)  # fmt: skip


def write_foot(
    draw: ImageDraw.ImageDraw, scenes: BenchScenes, exchange: Outcome, without: Outcome, size: Place
) -> None:
    apart, none = exchange.metrics(), without.metrics()

    def share(metrics: dict[str, float], name: str) -> str:
        return f"{metrics[name]:.0%} (95 %: {metrics[name + '_low']:.0%} to {metrics[name + '_high']:.0%})"

    text = (
        f"Over {apart['scenes']:.0f} scenes and their changed twins, in towns never trained on, A's video is right in "
        f"{share(apart, 'accuracy')} with exchange and {share(none, 'accuracy')} without; guessing gives "
        f"{apart['chance']:.0%}. After the change {share(apart, 'follows')} follow it.\n"
        "Shown are scenes that show the fact largest, chosen before anything was generated. Frames drawn on the "
        "pictures mark where the fact is; the model does not get them."
    )
    draw.multiline_text((MARGIN, size[1] - FOOT + 10), text, GREY, font(14), spacing=5)
