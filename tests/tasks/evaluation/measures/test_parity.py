"""Table 1's convention: scikit-image and LPIPS's published formula give the same figures on the same arrays."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchmetrics.functional.image.lpips as published
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from infra.storage import sha256_file
from tasks.evaluation.measures import lpips
from tasks.evaluation.measures.metrics import CONVENTION, psnr
from tasks.evaluation.measures.ssim import ssim
from tasks.evaluation.scoring.scores import Scores

HEADS = published.__file__.replace("lpips.py", "lpips_models/alex.pth")
CHANNELS = (3, 64, 192, 384, 256, 256)
KERNELS = (11, 5, 3, 3, 3)


def pictures(kind: str, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Generated and true frames [2, 3, h, w] in [0, 1]."""
    generator = torch.Generator().manual_seed(0)

    def smooth() -> torch.Tensor:
        coarse = torch.rand(2, 3, 4, 6, generator=generator)
        return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True).clamp(0, 1)

    def noisy(truth: torch.Tensor, scale: float) -> torch.Tensor:
        return (truth + scale * torch.randn(truth.shape, generator=generator)).clamp(0, 1)

    if kind == "noise":
        truth = torch.rand(2, 3, height, width, generator=generator)
        return noisy(truth, 0.1), truth
    if kind == "8 bit":
        truth = (smooth() * 255).round() / 255
        return (noisy(truth, 0.01) * 255).round() / 255, truth
    if kind == "sky":  # bright and almost flat
        truth = torch.full((2, 3, height, width), 0.98)
        return noisy(truth, 0.002), truth
    return smooth(), smooth()


def skimage_figures(generated: torch.Tensor, truth: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """PSNR and SSIM of frames [N, 3, h, w], one by one, in float64."""
    pairs = [(t.double().numpy(), g.double().numpy()) for g, t in zip(generated, truth, strict=True)]
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return (
        np.array([peak_signal_noise_ratio(*pair, data_range=1.0) for pair in pairs]),
        np.array([structural_similarity(*pair, data_range=1.0, channel_axis=0, **gaussian) for pair in pairs]),
    )


@pytest.mark.parametrize("size", [(16, 24), (32, 48), (240, 360)])
@pytest.mark.parametrize("kind", ["noise", "8 bit", "sky", "another"])
def test_psnr_and_ssim_are_scikit_images(kind, size):
    generated, truth = pictures(kind, *size)
    their_psnr, their_ssim = skimage_figures(generated, truth)
    np.testing.assert_allclose(psnr(generated, truth).numpy(), their_psnr, rtol=1e-6, atol=0)
    np.testing.assert_allclose(ssim(generated, truth).numpy(), their_ssim, rtol=0, atol=1e-6)


def test_a_rows_figures_are_the_mean_over_frames_views_and_agents_without_frame_0():
    generator = torch.Generator().manual_seed(1)
    truth = torch.rand(1, 2, 4, 3, 3, 16, 24, generator=generator)
    generated = (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    generated[..., 0, :, :, :] = 0  # the given frame: whatever is there does not count
    window = SimpleNamespace(name="a+00", scene="a", row={})
    scores = Scores(None)
    scores.add("model", [window], generated, truth)
    their_psnr, their_ssim = skimage_figures(
        generated[..., 1:, :, :, :].flatten(0, 3), truth[..., 1:, :, :, :].flatten(0, 3)
    )
    assert scores.mean("model", "psnr") == pytest.approx(their_psnr.mean(), rel=1e-6)
    assert scores.mean("model", "ssim") == pytest.approx(their_ssim.mean(), abs=1e-6)
    pooled = peak_signal_noise_ratio(truth.numpy(), generated.numpy(), data_range=1.0)
    assert abs(pooled - their_psnr.mean()) > 1  # what a pooled figure would be


def test_the_convention_says_what_was_tested():
    for said in ("per frame and per view", "RGB in [0, 1]", "data_range 1", "frame 0", "sigma 1.5", "AlexNet"):
        assert said in CONVENTION


@pytest.fixture
def backbone():
    """AlexNet's shapes with random weights: the formula can be compared, its value means nothing."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for place, out, channels, side in zip((0, 3, 6, 8, 10), CHANNELS[1:], CHANNELS, KERNELS, strict=False):
        spread = (channels * side**2) ** 0.5
        weights[f"features.{place}.weight"] = torch.randn(out, channels, side, side, generator=generator) / spread
        weights[f"features.{place}.bias"] = torch.randn(out, generator=generator) / 10
    return weights


def published_lpips(backbone, generated: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Zhang et al. 2018, equation 1, of frames [N, 3, h, w] in [0, 1], from torchmetrics' parts, in float64."""
    heads = torch.load(HEADS, map_location="cpu", weights_only=True)
    scaling = published.ScalingLayer().double()

    def features(x: torch.Tensor) -> list[torch.Tensor]:
        w = {name: value.double() for name, value in backbone.items()}
        conv = lambda x, n, **how: F.conv2d(x, w[f"features.{n}.weight"], w[f"features.{n}.bias"], **how)  # noqa: E731
        relu1 = F.relu(conv(scaling(2 * x.double() - 1), 0, stride=4, padding=2))
        relu2 = F.relu(conv(F.max_pool2d(relu1, 3, 2), 3, padding=2))
        relu3 = F.relu(conv(F.max_pool2d(relu2, 3, 2), 6, padding=1))
        relu4 = F.relu(conv(relu3, 8, padding=1))
        return [relu1, relu2, relu3, relu4, F.relu(conv(relu4, 10, padding=1))]

    total = torch.zeros(len(truth), dtype=torch.float64)
    for layer, (mine, theirs) in enumerate(zip(features(generated), features(truth), strict=True)):
        head = published.NetLinLayer(mine.shape[1]).double()
        head.load_state_dict({"model.0.weight": heads[f"lin{layer}.model.1.weight"]})
        unit = [published._normalize_tensor(x) for x in (mine, theirs)]
        total += published._spatial_average(head((unit[0] - unit[1]) ** 2), keep_dim=True).detach().flatten()
    return total


def test_lpips_is_the_published_formula_with_its_heads(backbone, tmp_path, monkeypatch):
    path = tmp_path / lpips.ALEXNET_NAME
    torch.save({**backbone, "classifier.1.weight": torch.zeros(1)}, path)
    monkeypatch.setenv(lpips.ALEXNET_VARIABLE, str(path))
    monkeypatch.setattr(lpips, "ALEXNET_SHA256", sha256_file(path)[:8])  # as if the publisher's file held these
    measure = lpips.load_lpips(64, 96)
    for kind in ("noise", "8 bit", "another"):
        generated, truth = pictures(kind, 64, 96)
        theirs = published_lpips(backbone, generated, truth)
        assert theirs.min() > 1e-4
        np.testing.assert_allclose(measure(generated, truth).numpy(), theirs.numpy(), rtol=1e-4)


@pytest.mark.parametrize("size", [(16, 24), (64, 31)])
def test_lpips_of_views_too_small_for_alexnet_is_not_measured(size, backbone, tmp_path, monkeypatch):
    path = tmp_path / lpips.ALEXNET_NAME
    torch.save(backbone, path)
    monkeypatch.setenv(lpips.ALEXNET_VARIABLE, str(path))
    monkeypatch.setattr(lpips, "ALEXNET_SHA256", sha256_file(path)[:8])
    with pytest.raises(lpips.LpipsMissing, match=rf"not measured: views of {size[1]}x{size[0]} pixels are too small"):
        lpips.load_lpips(*size)
