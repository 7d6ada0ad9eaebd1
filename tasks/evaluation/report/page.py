"""One HTML page that refers to no other file: texts, tables with intervals, plots and videos that play together.

    page = render("What was measured", [Text(["It learned."], tone="verdict"), Table(...), Figure(...), Video(...)])

Sections with a heading are linked at the top. The page is light or dark as the reader's system is, wide tables scroll
in a box of their own, and its content policy forbids the browser any request.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Literal

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Estimate:
    """A measured figure, with the ends of its 95 % interval where there is one."""

    mean: float
    low: float | None = None
    high: float | None = None
    digits: int = 3

    def __post_init__(self) -> None:
        """Refuse what is no number. ValueError."""
        ends = [end for end in (self.mean, self.low, self.high) if end is not None]
        if not all(map(math.isfinite, ends)) or (self.low is None) != (self.high is None):
            raise ValueError(f"{ends} is no figure: give finite numbers, with both ends or none, or use Missing.")


@dataclass(frozen=True)
class Missing:
    """A figure that could not be measured, and why."""

    reason: str


Cell = Estimate | Missing | str | None
"""None: nothing belongs here, so nothing is missing."""


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    label: str
    cells: Sequence[Cell]
    strong: bool = False
    """Set off from the others."""


@dataclass(frozen=True)
class Text:
    """Paragraphs."""

    paragraphs: Sequence[str]
    heading: str = ""
    tone: Literal["plain", "verdict", "quiet"] = "plain"


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first column holds the rows' labels."""

    columns: Sequence[str]
    rows: Sequence[Row]
    heading: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a row that does not fit. ValueError."""
        for row in self.rows:
            if len(row.cells) != len(self.columns) - 1:
                raise ValueError(
                    f"row {row.label!r} has {len(row.cells)} cells and {len(self.columns) - 1} columns: give one each."
                )


@dataclass(frozen=True)
class Figure:
    """A picture (PNG); figures that follow each other stand side by side."""

    png: bytes
    alt: str
    dark_png: bytes | None = None
    """Shown in its place on a dark page."""
    caption: str = ""
    heading: str = ""
    wide: bool = False
    """Over the full width, beside nothing."""


@dataclass(frozen=True)
class PageVideo:
    """A video (H.264 in an mp4) and what it shows."""

    mp4: bytes
    label: str
    marks: Sequence[str] = ()
    """Names of equally high parts of the picture, from the top."""
    last_frame: bytes = b""
    """JPEG, shown until the clip is played."""


@dataclass(frozen=True)
class Video:
    """Clips of equal length side by side, with one set of controls."""

    clips: Sequence[PageVideo]
    fps: float
    frames: int
    title: str = ""
    caption: str = ""
    heading: str = ""


Section = Text | Table | Figure | Video


def render(title: str, sections: Sequence[Section], *, subtitle: str = "") -> str:
    """Return the page. Everything given is text, never markup."""
    headings = [section.heading for section in sections if section.heading]
    links = "".join(f'<a href="#{anchor(heading)}">{escape(heading)}</a>' for heading in headings)
    parts = []
    for side_by_side, group in groupby(sections, lambda section: isinstance(section, Figure) and not section.wide):
        html = "".join(section_html(section) for section in group)
        parts.append(f'<div class="plots">{html}</div>' if side_by_side else html)
    return Template((FOLDER / "page.html").read_text()).substitute(
        title=escape(title),
        subtitle=f'<p class="quiet">{escape(subtitle)}</p>' if subtitle else "",
        style=(FOLDER / "page.css").read_text(),
        links=f"<nav>{links}</nav>" if len(headings) > 1 else "",
        body="".join(parts),
    )


def section_html(section: Section) -> str:
    heading = f'<h2 id="{anchor(section.heading)}">{escape(section.heading)}</h2>' if section.heading else ""
    return heading + HTML[type(section)](section)


def anchor(heading: str) -> str:
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def text_html(text: Text) -> str:
    paragraphs = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in text.paragraphs)
    return f'<div class="text {text.tone}">{paragraphs}</div>'


def table_html(table: Table) -> str:
    words = [False, *(of_words([row.cells[place] for row in table.rows]) for place in range(len(table.columns) - 1))]
    kinds = [' class="words"' if wordy else "" for wordy in words]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(table.columns, kinds, strict=True)
    )
    lines = "".join(
        f'<tr{" class=strong" if row.strong else ""}><th scope="row">{escape(row.label)}</th>'
        f"{''.join(f'<td{kind}>{cell_html(cell)}</td>' for cell, kind in zip(row.cells, kinds[1:], strict=True))}</tr>"
        for row in table.rows
    )
    note = f'<p class="quiet">{escape(table.note)}</p>' if table.note else ""
    box = f'<div class="box" tabindex="0" role="region" aria-label="{escape(table.heading or table.columns[0])}">'
    return f"{box}<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>{note}"


def of_words(cells: Sequence[Cell]) -> bool:
    """Tell whether a column holds words: it is set from the left and may wrap."""
    said = [cell for cell in cells if cell is not None]
    return bool(said) and all(isinstance(cell, str | Missing) for cell in said)


def cell_html(cell: Cell) -> str:
    if cell is None:
        return "·"
    if isinstance(cell, str):
        return escape(cell)
    if isinstance(cell, Missing):
        return f'<span class="quiet">{escape(cell.reason)}</span>'
    ends = ""
    if cell.low is not None and cell.high is not None:
        ends = f"<small>{number(cell.low, cell.digits)} … {number(cell.high, cell.digits)}</small>"
    return f"{number(cell.mean, cell.digits)}{ends}"


def number(value: float, digits: int) -> str:
    """Return a figure with a true minus sign, and none before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def figure_html(figure: Figure) -> str:
    dark = ""
    if figure.dark_png:
        source = data_uri(figure.dark_png, "image/png")
        dark = f'<source media="(prefers-color-scheme: dark)" srcset="{source}">'
    picture = f'<picture>{dark}<img alt="{escape(figure.alt)}" src="{data_uri(figure.png, "image/png")}"></picture>'
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    return f"<figure{' class=wide' if figure.wide else ''}>{picture}{caption}</figure>"


def video_html(video: Video) -> str:
    title = f"<h3>{escape(video.title)}</h3>" if video.title else ""
    caption = f'<p class="quiet">{escape(video.caption)}</p>' if video.caption else ""
    last = video.frames - 1
    shown = last if all(clip.last_frame for clip in video.clips) else 0
    controls = (
        '<div class="controls" hidden><button type="button">Play</button>'
        f'<input type="range" min="0" max="{last}" value="{shown}" aria-label="frame">'
        f"<output>frame {shown} of {last}</output></div>"
    )
    return (
        f'<article class="film" data-fps="{video.fps:g}" data-frames="{video.frames}">{title}{caption}'
        f'<div class="clips">{"".join(map(page_video_html, video.clips))}</div>{controls}</article>'
    )


def page_video_html(clip: PageVideo) -> str:
    places = [f'<span style="top:{100 * place / len(clip.marks):.4g}%">' for place in range(len(clip.marks))]
    marks = "".join(f"{place}{escape(mark)}</span>" for place, mark in zip(places, clip.marks, strict=True))
    poster = f'poster="{data_uri(clip.last_frame, "image/jpeg")}" ' if clip.last_frame else ""
    player = (
        f'<video {poster}controls loop muted playsinline preload="auto" aria-label="{escape(clip.label)}" '
        f'src="{data_uri(clip.mp4, "video/mp4")}"></video>'
    )
    return f'<figure><figcaption>{escape(clip.label)}</figcaption><div class="screen">{player}{marks}</div></figure>'


HTML: dict[type, Callable[..., str]] = {Text: text_html, Table: table_html, Figure: figure_html, Video: video_html}
