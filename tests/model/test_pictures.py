"""First frames from what a person has: all forms give the same pixels, and what is no picture is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from model import mosaic
from model.camera import VIEWS
from model.pictures import PictureError, first_frames
from model.presets import VideoConfig
from tasks.encoding.frames import model_video

HEIGHT, WIDTH = 32, 48
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def frame_of(picture, views="four", height=HEIGHT, width=WIDTH):
    return first_frames([picture], height, width, views)[0]


def views_of(pixels):
    return [view.permute(1, 2, 0).numpy() for view in mosaic.split(torch.from_numpy(pixels).permute(2, 0, 1))]


def test_every_form_of_a_picture_gives_the_same_pixels(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "mosaic.png")
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    views = views_of(PIXELS)
    forms = [
        PIXELS, Image.fromarray(PIXELS), tmp_path / "mosaic.png", str(tmp_path / "mosaic.png"), tensor, views,
        dict(zip(VIEWS, views, strict=True)), [Image.fromarray(view) for view in views],
    ]  # fmt: skip
    expected = tensor.float().div(127.5).sub(1)
    for form in forms:
        assert torch.equal(frame_of(form), expected)
    for form in (PIXELS / 255, (tensor / 255).to(torch.float64)):
        torch.testing.assert_close(frame_of(form), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("views", ["four", "front"])
def test_a_larger_picture_is_shrunk_as_training_clips_are(views):
    large = np.random.default_rng(1).integers(0, 256, (4 * HEIGHT, 4 * WIDTH, 3), np.uint8)
    config = VideoConfig(frames=9, height=HEIGHT, width=WIDTH, views=views)
    ours = frame_of(large if views == "four" else {"front": views_of(large)[0]}, views)
    assert torch.equal(ours, model_video(large[None, None], config)[0, :, 0])


def test_a_smaller_picture_is_enlarged_and_no_pixel_mixes_two_views():
    small = np.zeros((HEIGHT // 2, WIDTH // 2, 3), np.uint8)
    small[: HEIGHT // 4] = 255
    frame = frame_of(small)
    assert torch.equal(frame[:, : HEIGHT // 2], torch.ones(3, HEIGHT // 2, WIDTH))
    assert torch.equal(frame[:, HEIGHT // 2 :], -torch.ones(3, HEIGHT // 2, WIDTH))


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (np.zeros((HEIGHT, HEIGHT, 3), np.uint8), "is 32x32 pixels and the model takes 48x32: crop it first"),
        (np.zeros((HEIGHT, WIDTH), np.uint8), "is an array of shape"),
        (np.zeros((HEIGHT, WIDTH, 3), np.int64), "holds torch.int64"),
        (np.full((HEIGHT, WIDTH, 3), 2.0), "outside of 0 to 1"),
        (np.full((HEIGHT, WIDTH, 3), np.nan), "outside of 0 to 1"),
        (np.zeros((0, 0, 3), np.uint8), "has no pixels"),
        (torch.zeros(HEIGHT, WIDTH, 3), "is a tensor of shape"),
        (views_of(PIXELS)[:3], "is a list of 3: give 4"),
        ({"front": PIXELS}, "has no view 'rear'"),
        ([PIXELS, *views_of(PIXELS)[:2], np.zeros((9, 9, 3), np.uint8)], "the right picture of agent 0 is 9x9"),
        ("nowhere.png", "cannot be read"),
        (7, "is a int: give a path"),
        (np.zeros((33, 49, 3), np.uint8), "has even sides"),
    ],
)
def test_what_is_no_picture_is_refused(picture, sentence):
    with pytest.raises(PictureError, match=sentence):
        frame_of(picture)


def test_pictures_are_a_list_with_one_per_agent():
    assert first_frames([PIXELS, PIXELS, PIXELS], HEIGHT, WIDTH, "four").shape == (3, 3, HEIGHT, WIDTH)
    for wrong in ("a0.png", {"front": PIXELS}, PIXELS, []):
        with pytest.raises(PictureError, match="give a list with one picture per agent"):
            first_frames(wrong, HEIGHT, WIDTH, "four")
