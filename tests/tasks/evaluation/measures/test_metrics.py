"""Known answers; test_parity.py has scikit-image's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model import mosaic
from tasks.evaluation.measures.lpips import ALEXNET_VARIABLE, LpipsAlex, LpipsMissing, load_lpips
from tasks.evaluation.measures.metrics import HIGHEST_DB, detail, front_of, psnr, temporal_flickering, views_of
from tasks.evaluation.measures.ssim import ssim
from tasks.evaluation.scoring import scores as names
from tasks.evaluation.scoring.scores import Scores
from tasks.evaluation.scoring.windows import Window


@pytest.fixture
def pair():
    """Two [2, 3, 3, 24, 36] videos that look alike."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 3, 24, 36, generator=generator)
    return (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


def test_psnr_known_answers():
    truth = torch.full((3, 3, 8, 8), 0.5)
    assert psnr(truth + 0.1, truth).tolist() == pytest.approx([20.0] * 3, abs=1e-4)
    assert psnr(truth, truth).tolist() == [HIGHEST_DB] * 3


def test_ssim_of_a_picture_and_itself_is_1(pair):
    found = ssim(pair[1], pair[1])
    assert found.shape == (2, 3)
    assert found.flatten().tolist() == pytest.approx([1.0] * 6, abs=1e-5)


def test_a_figure_does_not_depend_on_how_the_frames_lie_in_memory(pair):
    apart = [video.transpose(0, 1).contiguous().transpose(0, 1) for video in pair]
    for figure in (psnr, ssim):
        assert torch.equal(figure(*apart), figure(*pair))
        with pytest.raises(ValueError, match="are compared with"):
            figure(pair[0][:1], pair[1])
    assert psnr(*pair).flatten().unique().numel() == 6  # one figure per frame


def test_temporal_flickering_is_vbenchs_formula(pair):
    eight_bit = (pair[0] * 255).round()
    frames = eight_bit.numpy()
    theirs = [[(255 - np.abs(clip[i] - clip[i + 1]).mean()) / 255 for i in range(2)] for clip in frames]
    np.testing.assert_allclose(temporal_flickering(eight_bit / 255).numpy(), theirs, atol=1e-6)
    still = pair[0][:, :1].expand(2, 3, 3, 24, 36)
    assert torch.equal(temporal_flickering(still), torch.ones(2, 2))


def test_detail_is_the_difference_of_neighbours(pair):
    ramp = torch.linspace(0, 1, 11).expand(2, 3, 5, 11)
    assert detail(ramp).tolist() == pytest.approx([0.1, 0.1])
    assert detail(ramp.transpose(-1, -2)).tolist() == pytest.approx([0.1, 0.1])
    assert detail(ramp + ramp.flip(-1)).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_sharpness_is_beside_the_codecs(pair):
    video, _ = pair
    scores = Scores(None)
    windows = [Window({"key": "a", "scene_id": "s"}, 0)]
    views = video[:1, None, None]
    scores.add(names.COPY, windows, views, views)
    assert "sharpness" not in scores.metrics(names.COPY)  # the codec's detail is not known yet
    scores.add(names.CODEC, windows, views, views)
    scores.add(names.ONE_STEP, windows, 0.5 * views, views)
    assert scores.mean(names.CODEC, "sharpness") == pytest.approx(1)
    assert scores.mean(names.ONE_STEP, "sharpness") == pytest.approx(0.5)


def test_views_are_cut_from_the_mosaic_in_order():
    video = torch.randn(2, 2, 3, 5, 8, 12).clamp(-1, 1)
    before = video.clone()
    views = views_of(video)
    assert torch.equal(video, before)
    assert views.shape == (2, 2, 4, 5, 3, 4, 6)
    right = (video[1, 0, :, 3, 4:, 6:] + 1) / 2
    assert torch.equal(views[1, 0, 3, 3], right)
    joined = mosaic.assemble(views.transpose(2, 3))
    torch.testing.assert_close(joined.transpose(2, 3) * 2 - 1, video)
    assert front_of(video).shape == (2, 2, 1, 5, 3, 8, 12)


def random_alexnet() -> tuple[dict, dict]:
    """Weights of the right shapes; not a valid LPIPS."""
    generator = torch.Generator().manual_seed(0)
    backbone, heads = {}, {}
    shapes = ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3))
    for tap, (place, (out, channels, side)) in enumerate(zip((0, 3, 6, 8, 10), shapes, strict=True)):
        weight = torch.randn(out, channels, side, side, generator=generator) / (channels * side**2) ** 0.5
        backbone |= {f"features.{place}.weight": weight, f"features.{place}.bias": torch.zeros(out)}
        heads[f"lin{tap}.model.1.weight"] = torch.rand(1, out, 1, 1, generator=generator)
    return backbone, heads


def test_lpips_is_zero_for_equal_frames_and_grows_with_noise():
    measure = LpipsAlex(*random_alexnet())
    frames = torch.rand(2, 4, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(2))
    none, some, much = (measure((frames + scale * noise).clamp(0, 1), frames) for scale in (0.0, 0.05, 0.5))
    assert none.shape == (2, 4)
    assert none.abs().max() == 0
    assert (some > 0).all()
    assert (much > some).all()


def test_lpips_needs_torchvisions_alexnet_and_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv(ALEXNET_VARIABLE, raising=False)
    with pytest.raises(LpipsMissing, match=r"not measured.*SHAREVERSE_ALEXNET.*alexnet-owt-7be5be79.pth"):
        load_lpips(64, 64)
    monkeypatch.setenv(ALEXNET_VARIABLE, str(tmp_path / "absent.pth"))
    with pytest.raises(LpipsMissing, match=r"absent\.pth, which is no file"):
        load_lpips(64, 64)
    torch.save(random_alexnet()[0], tmp_path / "random.pth")
    monkeypatch.setenv(ALEXNET_VARIABLE, str(tmp_path / "random.pth"))
    with pytest.raises(LpipsMissing, match="its sha256 differs"):
        load_lpips(64, 64)
