"""What is scored, on entries whose scores are known, and on untrained models exactly."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.build import build_transformer
from model.codec import LinearCodec
from tasks.benchmark.detector import CANNOT_TELL, calibrated
from tasks.benchmark.entries import CopyFirstFrame, Entry, GroundTruth, Ours
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.intervals import paired_interval, share_interval
from tasks.benchmark.score import clip_psnr, fact_psnr, outcome_difference, score_entry, swaps
from tasks.evaluation.measures.metrics import HIGHEST_DB
from tasks.evaluation.scoring.sampling import Sampler
from tests.tasks.benchmark.conftest import PRESET
from tests.tasks.benchmark.made_scenes import COLOURS, SHOWN, made_scenes, paint


class Painter(Entry):
    """Paints the colour that the partner's first frame shows in its corner, or always one."""

    def __init__(self, always: int | None = None) -> None:
        self.name, self.always = "painter", always

    def generate(self, first, K, c2w, names):
        videos = torch.zeros(*first.shape[:3], c2w.shape[3], *first.shape[3:])
        for video, picture in zip(videos, first, strict=True):
            colours = torch.tensor([[float(v) for v in colour.split(",")] for colour in COLOURS]) / 127.5 - 1
            seen = int((colours - picture[1, :, 0, 0]).square().sum(1).argmin())
            paint(video[0], SHOWN[0], COLOURS[seen if self.always is None else self.always])
        return videos


@pytest.fixture(scope="module")
def made():
    scenes = made_scenes("appearance")
    return scenes, calibrated(scenes, lambda videos: videos)


def test_an_entry_that_listens_to_its_partner(made):
    scenes, detector = made
    outcome = score_entry(Painter(), scenes, detector)
    metrics = outcome.metrics()
    assert (metrics["accuracy"], metrics["follows"], metrics["keeps"], metrics["neither"]) == (1.0, 1.0, 0.0, 0.0)
    assert (metrics["chance"], metrics["scenes"], metrics["cannot_tell"]) == (0.25, 12.0, 0.0)
    assert metrics["accuracy_low"] == pytest.approx(12 / (12 + 1.959964**2))
    assert metrics["exact_change"] > 0.5
    assert metrics["partner_swap_accuracy"] < 1.0
    assert "accuracy_uninformative" not in metrics
    assert "every scene" in outcome.missing["accuracy_uninformative"]
    with pytest.raises(BenchmarkError, match="was not measured: the partner sees"):
        outcome.interval("accuracy_uninformative")


def test_the_swapped_partner_is_the_one_that_is_read(made):
    scenes, detector = made
    outcome = score_entry(Painter(), scenes, detector)
    first, _ = swaps(scenes)[0]
    assert not (first[:, 1] == scenes.first[:, 1]).flatten(1).all(1).any()
    assert torch.equal(first[:, 0], scenes.first[:, 0])
    giver = [int((scenes.first[:, 1] == picture).flatten(1).all(1).nonzero()[0]) for picture in first[:, 1]]
    assert outcome.swapped is not None
    assert torch.equal(outcome.swapped, scenes.labels[giver])


def test_an_entry_that_always_says_the_same_is_right_by_chance(made):
    scenes, detector = made
    metrics = score_entry(Painter(always=2), scenes, detector).metrics()
    assert metrics["accuracy"] == pytest.approx(0.25)
    assert metrics["partner_swap_accuracy"] == pytest.approx(0.25)
    assert metrics["exact_change"] == 0.0
    assert metrics["follows"] + metrics["keeps"] + metrics["neither"] == pytest.approx(1.0)


def test_of_those_that_can_be_read_the_rest_is_left_out(made):
    scenes, detector = made
    outcome = score_entry(Painter(), scenes, detector)
    read = outcome.read.clone()
    read[0, 0], read[1], read[2, 1] = CANNOT_TELL, CANNOT_TELL, (scenes.labels[2, 1] + 1) % 4
    partly = dataclasses.replace(outcome, read=read)
    assert partly.by_scene("accuracy_decided").tolist() == [1.0, 0.5] + [1.0] * 9
    assert partly.by_scene("accuracy").tolist() == [0.5, 0.0, 0.5] + [1.0] * 9


def test_where_nothing_can_be_read_there_is_no_share_of_it(made):
    scenes, _ = made
    blind = SimpleNamespace(scenes=scenes, read=lambda videos: torch.full((len(videos),), CANNOT_TELL))
    outcome = score_entry(Painter(), scenes, blind)
    assert "none of the videos" in outcome.missing["accuracy_decided"]
    assert "accuracy_decided" not in outcome.metrics()
    assert outcome.metrics()["accuracy"] == 0.0


def test_scenes_that_do_not_inform_count_apart():
    scenes = made_scenes("binding", uninformative=4)
    detector = calibrated(scenes, lambda videos: videos)
    metrics = score_entry(GroundTruth(scenes), scenes, detector).metrics()
    assert (metrics["accuracy"], metrics["scenes"]) == (1.0, 8.0)
    assert metrics["accuracy_uninformative"] == 0.5  # the inputs do not tell scene from twin
    assert metrics["accuracy_uninformative_decided"] == 0.5
    nobody = made_scenes("binding", uninformative=12)
    with pytest.raises(BenchmarkError, match="in none of the scenes"):
        score_entry(CopyFirstFrame(), nobody, calibrated(nobody, lambda videos: videos))


def test_a_changed_path_is_followed():
    scenes = made_scenes("trajectory")
    detector = calibrated(scenes, lambda videos: videos)
    outcome = score_entry(GroundTruth(scenes), scenes, detector)
    assert (outcome.metrics()["accuracy"], outcome.metrics()["follows"]) == (1.0, 1.0)
    assert "takes no partner" in outcome.missing["partner_swap_accuracy"]
    assert "partner_swap_accuracy" not in outcome.metrics()


def test_a_detector_of_other_scenes_is_refused(made):
    with pytest.raises(BenchmarkError, match="calibrated on other scenes"):
        score_entry(CopyFirstFrame(), made_scenes("appearance"), made[1])


def test_a_partner_stands_where_it_stood_to_its_own(scenes):
    _, c2w = swaps(scenes)[0]
    assert torch.equal(c2w[:, 0], scenes.c2w[:, 0])
    seen = torch.linalg.inv(c2w[:, 0, 0, 0]) @ c2w[:, 1, 0, 0]
    stood = torch.linalg.inv(scenes.c2w[:, 0, 0, 0]) @ scenes.c2w[:, 1, 0, 0]
    apart = (seen[:, None] - stood[None]).abs().amax((2, 3))
    assert torch.equal(apart.argmin(1).sort().values, torch.arange(len(scenes)))
    assert float(apart.min(1).values.max()) < 1e-9
    assert (apart.argmin(1) != torch.arange(len(scenes))).all()


def test_psnr_of_clips_and_of_the_fact():
    truth = torch.zeros(1, 3, 9, 32, 48)
    masks = torch.zeros(1, 1, 9, 32, 48, dtype=torch.bool)
    masks[0, 0, 5, :4, :4] = True
    made = truth.clone()
    made[:, :, 5, :4, :4] = 0.2  # a tenth of the range
    assert float(fact_psnr(made, truth, masks)) == pytest.approx(20.0)
    per_view = -10 * np.log10(0.01 * 16 / (16 * 24))
    assert float(clip_psnr(made, truth, 4)) == pytest.approx((31 * HIGHEST_DB + per_view) / 32, abs=1e-4)
    assert torch.isnan(fact_psnr(made, truth, masks & False)).all()


def test_intervals_hold_at_the_ends():
    certain = share_interval([1.0] * 64)
    assert (certain.mean, certain.high) == (1.0, 1.0)
    assert certain.low == pytest.approx(0.9434, abs=1e-4)  # Wilson, 64 of 64
    half = share_interval([0.0, 1.0] * 50)
    assert (half.low, half.high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    with pytest.raises(ValueError, match="needs one"):
        share_interval([])


def test_paired_differences():
    """Newcombe's first example, Table II, method 10: both right 36, only the first 12, only the second 2 of 50."""
    first = np.repeat([1.0, 1.0, 0.0], [36, 12, 2])
    second = np.repeat([1.0, 0.0, 1.0], [36, 12, 2])
    paired = paired_interval(first, second)
    assert (paired.mean, paired.low, paired.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)
    alike, other = np.repeat([1.0, 0.0], [30, 20]), np.repeat([1.0, 0.0], [28, 22])
    close, loose = paired_interval(alike, other), paired_interval(alike, np.random.default_rng(0).permutation(other))
    assert loose.high - loose.low > close.high - close.low
    clear = paired_interval([1.0] * 20, [0.0] * 20)
    assert (clear.mean, clear.high) == (1.0, pytest.approx(1.0))
    assert 0.7 < clear.low < 0.9
    with pytest.raises(ValueError, match="20 and 3"):
        paired_interval([1.0] * 20, [0.0] * 3)


def test_shares_between_0_and_1_that_go_together_still_leave_an_interval():
    halves = np.repeat([0.0, 1.0], 32)
    found = paired_interval(halves, np.where(halves > 0, 5 / 6, 1 / 6))
    assert found.mean == pytest.approx(0)
    assert found.high > 0.04  # differences of a sixth either way in 64 scenes
    assert paired_interval(halves, halves).high == pytest.approx(0)


def test_arms_are_compared_on_the_same_scenes(made):
    scenes, detector = made
    good, bad = score_entry(Painter(), scenes, detector), score_entry(Painter(always=2), scenes, detector)
    apart = outcome_difference("accuracy", [good], [bad])
    assert apart.mean == pytest.approx(0.75)
    assert 0.3 < apart.low < 0.75 < apart.high <= 1.0
    with pytest.raises(BenchmarkError, match="scored on other scenes"):
        outcome_difference("accuracy", [good], [dataclasses.replace(bad, scenes=made_scenes("appearance", 8))])


def test_seeds_are_averaged_by_scene_before_they_are_compared(made):
    scenes, detector = made
    good, bad = score_entry(Painter(), scenes, detector), score_entry(Painter(always=2), scenes, detector)
    assert outcome_difference("accuracy", [good, bad], [bad, bad]).mean == pytest.approx(0.375)
    assert outcome_difference("follows", [good, good], [bad, bad]) == outcome_difference("follows", [good], [bad])
    better = dataclasses.replace(bad, psnr_fact=bad.psnr_fact + 3.0)
    fact = outcome_difference("psnr_fact", [better, better], [bad, bad])
    assert (fact.mean, fact.low, fact.high) == pytest.approx((3.0, 3.0, 3.0), abs=1e-4)
    shown = dataclasses.replace(better, psnr_fact=better.psnr_fact.clone())
    shown.psnr_fact[4] = torch.nan
    assert outcome_difference("psnr_fact", [shown], [bad]).clusters == len(scenes) - 1


@pytest.mark.parametrize(
    ("arm", "projector", "changes"),
    [("on", True, True), ("on", False, False), ("within", True, False), ("off", False, False)],
)
def test_what_the_partner_sees_reaches_an_untrained_model_by_the_cross_agent_blocks_alone(
    scenes, detector, codec: LinearCodec, tmp_path, arm, projector, changes
):
    preset = PRESET.replace(cross_agent=arm)
    model = build_transformer(preset)
    if projector:
        generator = torch.Generator().manual_seed(0)
        for block in model.cross_agent_blocks.values():
            block.projector.weight.data.normal_(std=0.02, generator=generator)
    model.save_pretrained(tmp_path / "model")
    outcome = score_entry(Ours(Sampler(preset, tmp_path / "model", codec), 2), scenes, detector)
    assert (outcome.exact_change > 0) == changes
    assert outcome.exact_change == outcome.metrics()["exact_change"]
    assert outcome.videos.shape == scenes.truth[:, 0].shape
