"""The figures' names, what they are called in a table, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """What a table says of a figure."""

    label: str
    higher_is_better: bool | None = True
    """None: neither."""


FIGURES = {
    "psnr_only_other": About("PSNR where only the other agent's first frame saw it, dB"),
    "psnr_own": About("PSNR where its own first frame saw it, dB"),
    "psnr_nobody": About("PSNR where no first frame saw it, dB"),
    "share_only_other": About("share of pixels only the other agent's first frame saw", None),
    "share_own": About("share of pixels its own first frame saw", None),
    "share_nobody": About("share of pixels no first frame saw", None),
    "partner_gain_only_other": About("gain by the partner's picture where only it saw, dB"),
    "partner_gain_own": About("gain by the partner's picture where the own first frame saw, dB", None),
    "partner_gain_nobody": About("gain by the partner's picture where nobody saw, dB", None),
    "covisible_agreement": About("co-visible agreement (0 strangers, 1 truth)"),
    "covisible_correlation": About("correlation of co-visible colours"),
    "other_recall": About("other car found where it is"),
    "other_false_presence": About("other car found where it is not", False),
    "other_centre_px": About("other car: centre error, px", False),
    "other_bearing_deg": About("other car: bearing error, degrees", False),
    "other_iou": About("other car: mask IoU"),
    "pose_following": About("pose following (0 strangers, 1 truth)"),
    "pose_correlation": About("correlation along the trajectory"),
    "still_correlation": About("correlation without movement", None),
    "seam_continuity": About("seam continuity (0 strangers, 1 truth)"),
    "seam_correlation": About("correlation across seams"),
    "swap_psnr": About("PSNR between both orders of the agents, dB"),
    "noise_psnr": About("PSNR between two noises, dB", None),
    "counterfactual_response": About("counterfactual response (1: all of the true change)"),
    "counterfactual_cosine": About("counterfactual cosine"),
    "counterfactual_outside": About("generated change where nothing truly changes", False),
    "rollout_drift": About("drift over a rollout, dB", False),
}
OTHER_CAR = ("other_recall", "other_false_presence", "other_centre_px", "other_bearing_deg", "other_iou")
PARTS = {
    "near": "nearer than 12 m", "middle": "12 to 25 m", "far": "farther than 25 m", "front": "front view",
    "rear": "rear view", "left": "left view", "right": "right view",
}  # fmt: skip
"""Of the view-frames in which the other car is looked for."""
FIGURES |= {
    f"{figure}_{part}": About(f"{FIGURES[figure].label}, {where}", FIGURES[figure].higher_is_better)
    for figure in OTHER_CAR
    for part, where in PARTS.items()
}
NORMALISED = {
    "covisible_agreement": "covisible_correlation",
    "pose_following": "pose_correlation",
    "seam_continuity": "seam_correlation",
}
"""Figures between the shuffled floor and the ground-truth ceiling, and what they are made of."""
LEAST_SPAN = 0.02
"""Ceiling and floor that lie closer together than this leave no scale."""


def label_of(figure: str) -> str:
    """Return what a table calls a figure; rollout_psnr_2 and the like by rule, others by their name."""
    for start, what in (
        ("rollout_psnr_", "PSNR of rollout window {}, dB"),
        ("rollout_sharpness_", "sharpness of rollout window {}"),
        ("rollout_other_recall_", "other car found where it is, rollout window {}"),
        ("rollout_other_bearing_deg_", "other car: bearing error, degrees, rollout window {}"),
    ):
        if figure.startswith(start):
            return what.format(figure.removeprefix(start))
    return FIGURES[figure].label if figure in FIGURES else figure
