"""The weights that VBench's dimensions need, and which of them are missing: VBench itself would start downloading."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from infra.storage import sha256_file
from tasks.evaluation.vbench.environment import folder

WEIGHTS_VARIABLE = "VBENCH_CACHE_DIR"
"""VBench's own name for the folder; ours is the default."""


@dataclass(frozen=True)
class Weight:
    """A file that VBench reads, below its cache folder."""

    path: str
    source: str
    sha256: str = ""
    """Its beginning, where the publisher states it."""


CLIP = "https://openaipublic.azureedge.net/clip/models"
CLIP_B = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
CLIP_L = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"

WEIGHTS: dict[str, tuple[Weight, ...]] = {
    "aesthetic_quality": (
        Weight("clip_model/ViT-L-14.pt", f"{CLIP}/{CLIP_L}/ViT-L-14.pt", CLIP_L),
        Weight(
            "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
            "https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
        ),
    ),
    "imaging_quality": (
        Weight(
            "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
            "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
            "358bb6af",
        ),
    ),
    "temporal_flickering": (),
    "motion_smoothness": (
        Weight("amt_model/amt-s.pth", "https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth"),
    ),
    "subject_consistency": (
        Weight(
            "dino_model/facebookresearch_dino_main/hubconf.py",
            "a checkout of https://github.com/facebookresearch/dino as that folder",
        ),
        Weight(
            "dino_model/dino_vitbase16_pretrain.pth",
            "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        ),
    ),
    "background_consistency": (Weight("clip_model/ViT-B-32.pt", f"{CLIP}/{CLIP_B}/ViT-B-32.pt", CLIP_B),),
}
DIMENSIONS = tuple(WEIGHTS)
"""In the order of the paper's Table 2."""
DINO_NAME = "dino_vitbase16_pretrain.pth"


def weights_folder() -> Path:
    """Return where VBench looks for weights."""
    return Path(os.environ.get(WEIGHTS_VARIABLE) or folder() / "weights").resolve()


def fault(weight: Weight) -> str:
    """Return what is wrong with a weight file, "" if nothing."""
    path = weights_folder() / weight.path
    if not path.is_file():
        return f"{path} is missing (from {weight.source})"
    if not sha256_file(path).startswith(weight.sha256):
        return f"{path} is not the published file (its sha256 does not begin with {weight.sha256[:8]})"
    return ""


def missing_weights(dimension: str) -> list[str]:
    """Return a clause for every file of a dimension that is not there or not what it should be."""
    return [text for weight in WEIGHTS[dimension] if (text := fault(weight))]


def link_dino() -> None:
    """Put DINO's file where torch.hub looks too: the hub's code takes it from there, whatever VBench passes."""
    there = weights_folder() / "torch_hub" / "hub" / "checkpoints" / DINO_NAME
    if not there.exists():
        there.parent.mkdir(parents=True, exist_ok=True)
        there.unlink(missing_ok=True)  # of a folder that was moved since
        there.symlink_to(weights_folder() / "dino_model" / DINO_NAME)
