"""The page: what it holds, what it refuses, and how a real browser shows it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.evaluation.report.page import Estimate, Figure, Missing, PageVideo, Row, Table, Text, Video, number, render
from tasks.evaluation.report.pictures import jpeg, write_video
from tests.tasks.evaluation.browser import Browser, program

FRAMES, FPS = 9, 10.0
EVERY_WINDOW = ((1280, False), (1280, True), (390, False), (390, True))


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1200, 500), colour).save(buffer, "PNG")
    return buffer.getvalue()


def clip(folder: Path, label: str, *, poster: bool = True) -> PageVideo:
    """A clip that grows brighter."""
    frames = np.arange(FRAMES, dtype=np.uint8)[:, None, None, None].repeat(64, 1).repeat(48, 2).repeat(3, 3) * 20
    path = folder / "clip.mp4"
    write_video(path, frames, FPS, width=96)
    return PageVideo(path.read_bytes(), label, ("agent 0", "agent 1"), jpeg(frames[-1]) if poster else b"")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page with every kind of section, among them a table wider than any telephone."""
    folder = tmp_path_factory.mktemp("page")
    columns = [f"a rather long name {number}" for number in range(12)]
    row = Row(
        "model <b>", [Estimate(0.5, 0.25, 0.75), Missing("not measured: <no weights>"), *["words"] * 9], strong=True
    )
    clips = [clip(folder, label) for label in ("recorded", "model", "error")]
    sections = [
        Text(["It learned & more."], tone="verdict"),
        Figure(png((255, 255, 255)), "a wide picture", wide=True),
        Table(columns, [row], "Figures", "A note."),
        Figure(png((255, 0, 0)), "light", png((0, 0, 255)), heading="Plots"),
        Figure(png((255, 0, 0)), "another"),
        Video(clips, FPS, FRAMES, "Mini11", "a caption", "Videos"),
    ]
    path = folder / "report.html"
    path.write_text(render("A title with <markup>", sections, subtitle="a run"))
    return path


def test_what_is_given_is_text_and_everything_is_inside(page):
    text = page.read_text()
    assert "<title>A title with &lt;markup&gt;</title>" in text
    assert "model &lt;b&gt;" in text
    assert "not measured: &lt;no weights&gt;" in text
    assert "It learned &amp; more." in text
    assert '<a href="#figures">Figures</a><a href="#plots">Plots</a><a href="#videos">Videos</a>' in text
    addresses = re.findall(r'(?:src|srcset|poster|href)="([^"]{1,9})', text)
    assert len(addresses) > 10
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "default-src 'none'" in text


def test_figures_that_follow_each_other_stand_side_by_side(page):
    text = page.read_text()
    assert text.count('<div class="plots">') == 1
    assert text.index("<figure class=wide>") < text.index('<div class="plots">')
    assert text.count('media="(prefers-color-scheme: dark)"') == 1


@pytest.mark.parametrize(
    ("value", "digits", "said"), [(-0.912, 2, "−0.91"), (-0.001, 2, "0.00"), (12.0, 0, "12"), (0.97654, 4, "0.9765")]
)
def test_numbers(value, digits, said):
    assert number(value, digits) == said


def test_an_interval_stands_below_its_mean(page):
    assert "0.500<small>0.250 … 0.750</small>" in page.read_text()


@pytest.mark.parametrize(
    "ends", [(float("nan"),), (float("inf"),), (1.0, 0.5), (1.0, float("nan"), 2.0), (1.0, None, 2.0)]
)
def test_what_is_no_figure_is_refused(ends):
    with pytest.raises(ValueError, match="is no figure"):
        Estimate(*ends)


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="row 'short' has 1 cells and 2 columns"):
        Table(["a", "b", "c"], [Row("short", [Estimate(1.0)])])


needs_browser = pytest.mark.skipif(program() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@needs_browser
@pytest.mark.parametrize(("width", "dark"), EVERY_WINDOW)
def test_a_browser_shows_it_without_a_complaint(page, browser, width, dark):
    browser.open(page, width, dark=dark)
    browser.until("[...document.querySelectorAll('video')].every(video => video.readyState >= 1)")
    assert browser.logged() == []
    assert browser.asked() == []
    assert browser.js("document.documentElement.scrollWidth") == width
    assert browser.js("[...document.images].every(image => image.naturalWidth > 0)")
    box = "document.querySelector('.box')"
    assert browser.js(f"{box}.scrollWidth > {box}.clientWidth && {box}.clientWidth < {width}")
    paper = browser.js("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
    shown = browser.js("document.querySelector('.plots img').currentSrc === document.querySelector('.plots img').src")
    assert shown is not dark


@needs_browser
def test_the_clips_of_a_film_play_together(page, browser):
    browser.open(page, 1280)
    film = "document.querySelector('.film')"
    clips = f"[...{film}.querySelectorAll('video')]"
    assert browser.js(f"{film}.querySelector('output').textContent") == "frame 8 of 8"
    browser.js(f"{film}.scrollIntoView()")
    browser.until(f"{clips}.every(clip => clip.readyState >= 2 && !clip.paused && clip.currentTime > 0)")
    assert browser.js(f"{film}.querySelector('button').textContent") == "Pause"
    browser.js(f"{film}.querySelector('button').click()")
    assert browser.js(f"{clips}.every(clip => clip.paused)")
    browser.js(f"{{const s = {film}.querySelector('input'); s.value = 5; s.dispatchEvent(new Event('input'))}}")
    browser.until(f"{clips}.every(clip => !clip.seeking && Math.floor(clip.currentTime * {FPS}) === 5)")
    browser.until(f"{film}.querySelector('output').textContent === 'frame 5 of 8'")
    assert browser.logged() == []


@needs_browser
def test_the_check_sees_a_fault_and_a_request(tmp_path, page, browser):
    faulty = tmp_path / "faulty.html"
    text = page.read_text()
    faulty.write_text(
        text.replace("</main>", '<img alt="" src="http://127.0.0.1:9/x.png"><script>nothing()</script></main>')
    )
    browser.open(faulty, 1280)
    said = str(browser.logged())
    assert "nothing is not defined" in said
    assert "Content Security Policy" in said
