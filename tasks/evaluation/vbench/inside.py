"""Runs in VBench's environment, not in ours: the standard library and VBench only.

python inside.py probe                       -> versions as JSON on stdout, after importing all six dimensions
python inside.py score REQUEST.json ANSWER.json
  request: {"dimension": name, "videos": folder of .mp4 files, "work": folder}
  answer: {"dimension": name, "mean": VBench's aggregate, "videos": {file name: VBench's own number}, "device": ...}
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

DIMENSIONS = (
    "aesthetic_quality",
    "imaging_quality",
    "temporal_flickering",
    "motion_smoothness",
    "subject_consistency",
    "background_consistency",
)
SHOWN = ("vbench", "torch", "torchvision", "transformers", "numpy", "opencv-python", "decord", "pyiqa", "timm")


def probe() -> dict[str, str]:
    """Import what the six dimensions need; return versions."""
    for dimension in DIMENSIONS:
        importlib.import_module(f"vbench.{dimension}")
    return {name: version(name) for name in SHOWN}


def score_videos(request: dict[str, Any]) -> dict[str, Any]:
    """Score a folder of videos in one dimension by VBench's `custom_input` mode, weights from its cache folder."""
    import torch
    from vbench import VBench

    device = "cuda" if torch.cuda.is_available() else "cpu"
    judge = VBench(device, "", request["work"])  # its list of prompts is for the other modes
    dimension = request["dimension"]
    judge.evaluate(request["videos"], "shareverse", dimension_list=[dimension], local=True, mode="custom_input")
    results = json.loads((Path(request["work"]) / "shareverse_eval_results.json").read_text())
    mean, videos = results[dimension]
    by_name = {Path(video["video_path"]).name: float(video["video_results"]) for video in videos}
    return {"dimension": dimension, "mean": float(mean), "videos": by_name, "device": device}


if __name__ == "__main__":
    if sys.argv[1] == "probe":
        print(json.dumps(probe()))
    else:
        answer = score_videos(json.loads(Path(sys.argv[2]).read_text()))
        Path(sys.argv[3]).write_text(json.dumps(answer))
