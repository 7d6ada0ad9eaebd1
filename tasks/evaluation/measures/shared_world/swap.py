"""Swap symmetry: does it matter which agent comes first?

Definition: the same pair is generated twice from the same noise, the second time with the agents swapped in every input
(first frame, trajectory, noise). `swap_psnr` is the PSNR between the first output and the second one swapped back,
later frames, all agents and views pooled; `noise_psnr` that between two outputs of the same input from different noise:
what the order may cost by chance.
Range: 0..60 dB; 60 means symmetric. Ground truth and codec are symmetric by construction.
Failure cases: a model that ignores its input or always gives one picture is symmetric; RoPE over doubled frames is not
(trap 24: agent order matters), nor are raymaps in agent 0's axes: the figure says how much training has made up for it.
Source: the paper's agents have no order; RoPE over 2f frames (section 4.3) gives them one.
"""

from __future__ import annotations

import torch

from tasks.evaluation.measures.metrics import GIVEN_FRAMES, HIGHEST_DB


def pooled_psnr(videos: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return [N] dB between views [N, A, V, T, 3, h, w] in [0, 1], frame 0 left out, HIGHEST_DB at most."""
    error = (videos - others)[:, :, :, GIVEN_FRAMES:].square().flatten(1).mean(1)
    return (-10 * error.clamp(min=1e-12).log10()).clamp(max=HIGHEST_DB)


def swapped(pair: torch.Tensor) -> torch.Tensor:
    """Return [N, A, ...] with the agents in reverse order."""
    return pair.flip(1)
