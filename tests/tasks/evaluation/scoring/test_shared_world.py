"""Single figures among the scores, probes of a model, and what a clip without ground truth gives: a reason."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tasks.evaluation.measures.shared_world.figures import FIGURES, label_of
from tasks.evaluation.measures.shared_world.measure import STANDS_FOR
from tasks.evaluation.measures.shared_world.visibility import CLASSES
from tasks.evaluation.report.write import latents_dir_of
from tasks.evaluation.scoring import probes
from tasks.evaluation.scoring import scores as names
from tasks.evaluation.scoring.sampling import Sampler
from tasks.evaluation.scoring.score import Scoring, scored_views
from tasks.evaluation.scoring.scores import Scores
from tasks.evaluation.scoring.shared_world import SharedWorld, gains
from tasks.evaluation.scoring.windows import Window, Windows
from tasks.sharding.reader import ClipIndex


def window(scene: str, start: int = 0) -> Window:
    row = {"key": scene, "scene_id": scene, "recording_id": scene, "variant": "base", "window": 0, "town": "T",
           "weather": "w", "trajectory_type": "crossing"}  # fmt: skip
    return Window(row, start)


def scores_with(truth: list[float], floor: list[float], model: list[float]) -> Scores:
    scores = Scores(None)
    for number, values in enumerate(zip(truth, floor, model, strict=True)):
        for row, value in zip((names.GROUND_TRUTH, names.SHUFFLED_PAIRS, names.ONE_STEP), values, strict=True):
            scores.put_figures(row, window(f"s{number}"), {"covisible_correlation": value})
    return scores


def test_normalised_figures_lie_between_strangers_and_truth():
    scores = scores_with([0.9, 0.7], [0.1, 0.3], [0.6, 0.4])
    assert scores.normalise() == {}
    assert scores.per_window(names.GROUND_TRUTH, "covisible_agreement") == {"s0+00": 1, "s1+00": 1}
    assert scores.mean(names.SHUFFLED_PAIRS, "covisible_agreement") == pytest.approx(0)
    assert scores.mean(names.ONE_STEP, "covisible_agreement") == pytest.approx(0.5)


def test_without_a_scale_there_is_no_figure():
    scores = scores_with([0.5, 0.5], [0.49, 0.5], [0.6, 0.4])
    assert "ground truth (0.500) lies no 0.02 above" in scores.normalise()["covisible_agreement"]
    assert "covisible_agreement" not in scores.metrics(names.ONE_STEP)
    alone = Scores(None)
    alone.put_figures(names.GROUND_TRUTH, window("s0"), {"covisible_correlation": 0.9})
    assert "one scene" in alone.normalise()["covisible_agreement"]


def test_what_no_window_gives_is_no_figure_and_one_scene_gives_no_interval():
    scores = scores_with([0.9, 0.7], [0.1, 0.3], [0.6, 0.4])
    scores.put_figures(names.ONE_STEP, window("s0"), {"psnr_only_other": 20.0, "psnr_nobody": None})
    assert (names.ONE_STEP, "psnr_nobody") not in scores.arrays
    assert set(scores.drop_lonely()) == {f"{names.ONE_STEP}/psnr_only_other"}
    assert "psnr_only_other" not in scores.metrics(names.ONE_STEP)
    assert scores.metrics(names.ONE_STEP) == ["covisible_correlation"]


def test_the_table_has_a_window_s_figures_where_it_has_some():
    scores = scores_with([0.9, 0.7], [0.1, 0.3], [0.6, 0.4])
    scores.put_figures(names.ONE_STEP, window("s1"), {"swap_psnr": 30.0})
    lines = [line for line in scores.table() if line["row"] == names.ONE_STEP]
    assert [line.get("swap_psnr") for line in lines] == [None, 30.0]


def test_every_figure_has_a_name_for_people():
    assert label_of("psnr_only_other") == FIGURES["psnr_only_other"].label
    assert label_of("rollout_psnr_2") == "PSNR of rollout window 2, dB"


def test_clips_without_ground_truth_give_reasons_and_no_number(run):
    scores = Scores(None)
    windows = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("train"), run.preset)
    world = SharedWorld(windows, scores)
    truth = scored_views(windows.video([0]), run.preset)
    world.measure_batch([0], truth, None, [(names.COPY, [0], truth)])
    missing = world.finish()
    assert set(STANDS_FOR.values()) <= set(missing)
    assert all("lacks depth or instance ids" in missing[name] for name in STANDS_FOR.values())
    assert scores.arrays == {}


def test_a_figure_is_over_all_windows_or_missing(run):
    """The test clips have ground truth, the training clips, which come after them, have none."""
    index, scores = ClipIndex(run.dataset_dir), Scores(None)
    windows = Windows(run.dataset_dir, index.split("test") + index.split("train"), run.preset)
    world = SharedWorld(windows, scores)

    def batch(*indices: int) -> None:
        truth = scored_views(windows.video(indices), run.preset)
        world.measure_batch(indices, truth, truth.flip(2), [(names.COPY, indices, truth.roll(1, 3))])

    batch(0, 1)
    assert world.measurable
    figures = {metric for _, metric in scores.arrays}
    assert {"psnr_own", "share_own", "covisible_correlation", "seam_correlation"} <= figures
    last = len(windows) - 1
    batch(2, last)  # the failure is in the middle of a batch
    assert not world.measurable
    batch(3)
    scores.put_figures(names.ONE_STEP, windows[0], {"swap_psnr": 30.0})
    scores.put_figures(names.ONE_STEP, windows[2], {"swap_psnr": 32.0})
    missing = world.finish()
    reason = f"clip {windows[last].row['key']} lacks depth or instance ids"
    assert all(reason in missing[name] for name in STANDS_FOR.values())
    assert list(scores.arrays) == [(names.ONE_STEP, "swap_psnr")]  # it needs no ground truth


def test_what_one_window_has_no_seams_or_poses_for_is_dropped_alone(run):
    scores = Scores(None)
    world = SharedWorld(Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("test"), run.preset), scores)
    put = {"seam_correlation": 0.9, "other_recall_near": 0.8, "other_iou": 0.7, "pose_correlation": 0.6}
    for scene in ("s0", "s1"):
        scores.put_figures(names.GROUND_TRUTH, window(scene), put)
    world.missing = {"seam_continuity": "not measured: narrow", "other_recall_near": "not measured: no poses"}
    assert world.missing.items() <= world.finish().items()
    assert scores.metrics(names.GROUND_TRUTH) == ["other_iou", "pose_correlation"]


def test_a_car_that_the_codec_takes_away_is_not_called_missing(run):
    scores = Scores(None)
    windows = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("test"), run.preset)
    world = SharedWorld(windows, scores)
    for row, recall in ((names.GROUND_TRUTH, 0.95), (names.CODEC, 0.1), (names.ONE_STEP, 0.2)):
        for scene in ("s0", "s1"):
            scores.put_figures(row, window(scene), {"other_recall": recall, "other_iou": recall})
    assert "colour in 10% of the views" in world.finish()["other_recall"]
    assert scores.metrics(names.ONE_STEP) == []
    assert scores.mean(names.CODEC, "other_recall") == pytest.approx(0.1)


def test_a_detector_that_is_wrong_of_all_true_videos_judges_none(run):
    scores = Scores(None)
    windows = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("test"), run.preset)
    for truth_recall in (0.9, 0.6):
        world = SharedWorld(windows, scores)
        put = {"other_false_presence": 0.05, "other_centre_px": 0.5}
        for row, recall in ((names.GROUND_TRUTH, truth_recall), (names.CODEC, 0.9), (names.COPY, 0.5)):
            for scene in ("s0", "s1"):
                scores.put_figures(row, window(scene), put | {"other_recall": recall})
        missing = world.finish()
        judged = truth_recall >= 0.8
        assert ("has a recall of 0.60" in missing["other_recall"]) is not judged
        assert bool(scores.metrics(names.COPY)) is judged
        assert scores.metrics(names.GROUND_TRUTH)


def test_what_no_window_could_give_has_a_reason(run):
    windows = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("test"), run.preset)
    world = SharedWorld(windows, Scores(None))
    truth = scored_views(windows.video([0]), run.preset)
    world.measure_batch([0], truth, None, [(names.COPY, [0], truth)])
    world.figures.discard("psnr_only_other")
    missing = world.finish()
    assert "in no window do enough pixels" in missing["psnr_only_other"]
    assert "in no window" not in missing.get("pose_following", "")


@pytest.fixture
def asked(run):
    """A sampler, two windows, their first frames and a way to cut views."""
    sampler = Sampler.of_checkpoint(run.preset, run.latest_checkpoint(), latents_dir_of(run))
    windows = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("test"), run.preset)
    return sampler, windows, windows.video([0, 2])[:, :, :, 0], lambda video: scored_views(video, run.preset)


def wake(sampler: Sampler) -> None:
    """Let agents exchange something: the projector starts at zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sampler.pipeline.transformer.named_parameters():
            if name.endswith("projector.weight"):
                parameter.copy_(3 * torch.randn(parameter.shape, generator=generator))


def test_agents_that_exchange_nothing_have_no_order_and_no_partner(asked):
    sampler, windows, first, cut = asked
    video = sampler.generate(first, windows.raymaps([0, 2]), [windows[0].name, windows[2].name], 1)
    figures = probes.swap_figures(sampler, windows, [0, 2], first, video, cut)
    assert [figure["swap_psnr"] for figure in figures] == [60, 60]
    assert max(figure["noise_psnr"] for figure in figures) < 40
    foreign = probes.with_stranger(sampler, windows, [0, 2], first, first.flip(0))
    assert torch.allclose(foreign, video, atol=1e-5)


def test_agents_that_exchange_something_are_asked_about_it(asked):
    sampler, windows, first, cut = asked
    wake(sampler)
    video = sampler.generate(first, windows.raymaps([0, 2]), [windows[0].name, windows[2].name], 1)
    assert all(f["swap_psnr"] < 60 for f in probes.swap_figures(sampler, windows, [0, 2], first, video, cut))
    foreign = probes.with_stranger(sampler, windows, [0, 2], first, first.flip(0))
    assert (foreign - video).abs().max() > 1e-3


def test_the_variant_of_a_scene_is_asked_about_where_an_agent_drives_the_same_way(asked):
    sampler, windows, _, cut = asked
    assert (
        "no two recordings of one scene"
        in probes.counterfactuals(sampler, windows, Scores(None), cut)["counterfactual_response"]
    )
    first, second = windows[0].row, windows[2].row
    assert first["key"] != second["key"]
    second |= {"scene_id": first["scene_id"], "variant": "other_trajectory"}
    assert probes.variant_pairs(windows) == []  # both drive elsewhere
    windows.cameras[second["key"]].c2w[0] = windows.cameras[first["key"]].c2w[0]
    assert probes.variant_pairs(windows) == [(0, 2, 0), (1, 3, 0)]
    second["window"] += 49
    assert probes.variant_pairs(windows) == []  # a later clip of the recording
    second["window"] -= 49
    scores = Scores(None)
    assert probes.counterfactuals(sampler, windows, scores, cut) == {}
    assert scores.mean(names.GROUND_TRUTH, "counterfactual_response") == pytest.approx(1)
    assert scores.mean(names.GROUND_TRUTH, "counterfactual_outside") < 1e-3
    assert np.isfinite(scores.mean(names.ONE_STEP, "counterfactual_response"))


def test_a_change_that_nobody_sees_has_a_reason(asked):
    sampler, windows, _, cut = asked
    first, second = windows[0].row, windows[2].row
    second |= {"scene_id": first["scene_id"], "variant": "other_trajectory"}
    windows.cameras[second["key"]].c2w[0] = windows.cameras[first["key"]].c2w[0]
    windows.pixels = lambda key: windows.read_pixels(first["key"])
    scores = Scores(None)
    missing = probes.counterfactuals(sampler, windows, scores, cut)
    assert "in none of 2 pairs" in missing["counterfactual_response"]
    assert scores.arrays == {}


def test_one_agent_alone_has_no_partner_to_be_asked_about(asked):
    sampler, windows, _, _ = asked
    for key, cameras in windows.cameras.items():
        windows.cameras[key] = dataclasses.replace(cameras, K=cameras.K[:1], c2w=cameras.c2w[:1])
    windows.pixels = windows.read_pixels  # nothing of both agents is kept
    scoring = Scoring(sampler, windows, 1.0, Scores(None), set())
    scoring.world.missing = dict.fromkeys(STANDS_FOR.values(), "not measured: of two agents alone")
    scoring.score_batch([0, 2])
    missing = scoring.finish()
    assert missing["swap_psnr"] == missing["partner_gain_only_other"] == probes.ALONE
    metrics = {metric for _, metric in scoring.scores.arrays}
    assert "psnr" in metrics
    assert not metrics & {"swap_psnr", "noise_psnr", *(f"partner_gain_{name}" for name in CLASSES)}


def test_a_gain_is_what_the_partners_picture_adds_to_a_strangers():
    mine = {f"psnr_{name}": 21.0 for name in CLASSES}
    others = dict.fromkeys(mine, 20.0)
    assert gains(mine, others) == {f"partner_gain_{name}": 1.0 for name in CLASSES}
    first = next(iter(mine))
    assert next(iter(gains(mine | {first: None}, others).values())) is None
