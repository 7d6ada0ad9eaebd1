"""On a real recording: ground truth and codec round trip near the ceiling, strangers near the floor."""

from __future__ import annotations

import pytest

from model.codec import LinearCodec
from model.presets import Preset
from tasks.encoding.frames import model_video
from tasks.evaluation.measures.metrics import views_of
from tasks.evaluation.measures.shared_world.measure import WindowGeometry, measure_window
from tasks.evaluation.measures.shared_world.world import read_window_truth
from tasks.evaluation.scoring import scores as names
from tasks.sharding.reader import ClipPairs


@pytest.fixture(scope="module")
def measured(tiny):
    """Figures by row of a recorded window, with a codec of 48 channels and another town's video as the stranger."""
    video = Preset.load("tiny").replace(height=32, width=48, frames=17).video
    pair, strangers = ClipPairs(tiny.folder, "test")[0], ClipPairs(tiny.folder, "train")[0]
    true, foreign = (model_video(clip.videos, video) for clip in (pair, strangers))
    codec = LinearCodec.fit([true, foreign], 48)
    latents, _ = codec.encode(true)
    decoded = codec.decode(latents).float()
    truth, round_trip, stranger = (views_of(part[None])[0] for part in (true, decoded, foreign))
    rows = {names.CODEC: round_trip, names.COPY: truth[:, :, :1].expand_as(truth)}
    window = WindowGeometry.of_views(read_window_truth(pair, video), truth, rows, stranger)
    return measure_window(window, None, {}, ground_truth=names.GROUND_TRUTH, floor=names.SHUFFLED_PAIRS)


@pytest.mark.parametrize("figure", ["covisible_correlation", "pose_correlation", "seam_correlation"])
def test_truth_and_codec_are_near_the_ceiling_and_strangers_near_the_floor(measured, figure):
    ceiling, codec, floor = (measured[row][figure] for row in (names.GROUND_TRUTH, names.CODEC, names.SHUFFLED_PAIRS))
    assert ceiling > floor + 0.05
    assert (codec - floor) / (ceiling - floor) > 0.7


def test_a_standing_picture_does_not_follow(measured):
    assert measured[names.COPY]["pose_correlation"] < measured[names.CODEC]["pose_correlation"] - 0.03


def test_the_codec_is_right_wherever_it_was_seen_and_strangers_nowhere(measured):
    for name in ("psnr_own", "psnr_only_other"):
        assert measured[names.CODEC][name] > measured[names.SHUFFLED_PAIRS][name] + 3
    shares = [measured[names.GROUND_TRUTH][f"share_{name}"] for name in ("own", "only_other", "nobody")]
    assert 0.5 < sum(shares) <= 1
    assert min(shares) > 0
