"""VBench's six dimensions of several rows of videos: ground truth beside the model, mosaics and views apart."""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.reading import read_json
from infra.storage import OnProgress, no_progress
from tasks.evaluation.vbench.environment import INSIDE, interpreter, is_ready
from tasks.evaluation.vbench.errors import VBenchError
from tasks.evaluation.vbench.flickering import file_flickering
from tasks.evaluation.vbench.weights import DIMENSIONS, WEIGHTS_VARIABLE, link_dino, missing_weights, weights_folder

CONVENTION = (
    "VBench 0.1.5 (Huang et al. 2024), mode custom_input, one score per video, then their mean; whole videos, "
    "frame 0 included, stored without loss. Imaging quality divided by 100. Mosaics are scored as one picture "
    "(VBench's square crop then shows the seam of the four views) and views one by one, as the paper does not say "
    "which. Temporal flickering is computed here by VBench's formula. Flickering, smoothness and both consistencies "
    "punish the cameras' own motion: only the difference to the ground truth's figure means something."
)
NAME = "{:05d}.mp4"
SCALE = {"imaging_quality": 100.0}
"""VBench's score of one video divided by the score in the table (trap 34: metric conventions differ)."""


@dataclass(frozen=True)
class VBenchScores:
    """Table 2: figures by row and dimension, and why a dimension has none."""

    rows: dict[str, dict[str, float]]
    videos: dict[str, dict[str, dict[str, float]]]
    """The same for every video: row, dimension, path."""
    missing: dict[str, str] = field(default_factory=dict)
    convention: str = CONVENTION

    def record(self) -> dict[str, Any]:
        """Return it as JSON's types."""
        return {
            "rows": self.rows,
            "videos": self.videos,
            "missing": self.missing,
            "convention": self.convention,
        }


def unavailable(dimension: str) -> str:
    """Return why a dimension cannot be measured here ("not measured: ..."), "" if it can: the preflight."""
    if dimension == "temporal_flickering":
        return ""
    if not is_ready():
        return "not measured: VBench is not set up; run `python -m tasks.evaluation.vbench setup`"
    lacking = missing_weights(dimension)
    return f"not measured: {'; '.join(lacking)}" if lacking else ""


def run_vbench(dimension: str, videos: Sequence[Path]) -> list[float]:
    """Return VBench's number of each video, 0 to 1, by its own code in its own process. VBenchError in a sentence."""
    if dimension == "subject_consistency":
        link_dino()
    environment = os.environ | {
        WEIGHTS_VARIABLE: str(weights_folder()),
        "TORCH_HOME": str(weights_folder() / "torch_hub"),
        "HF_HUB_OFFLINE": "1",
    }
    with tempfile.TemporaryDirectory(prefix="vbench-") as name:
        work = Path(name)
        (work / "videos").mkdir()
        for index, video in enumerate(videos):
            (work / "videos" / NAME.format(index)).symlink_to(video.resolve())
        request, answer = work / "request.json", work / "answer.json"
        request.write_text(
            json.dumps({"dimension": dimension, "videos": str(work / "videos"), "work": str(work / "out")})
        )
        command = [str(interpreter()), "-P", str(INSIDE), "score", str(request), str(answer)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=work)
        if done.returncode or not answer.exists():
            words = done.stderr.strip().splitlines() or ["it said nothing"]
            raise VBenchError(f"VBench failed on {dimension}: {words[-1]}")
        scores = read_json(answer, f"VBench failed on {dimension}; score again.", error=VBenchError)
        return numbers(dimension, scores, len(videos))


def numbers(dimension: str, answer: Mapping[str, Any], count: int) -> list[float]:
    """Return the scores of `count` videos in their order. VBenchError if one is missing or not a number in [0, 1]."""
    scale = SCALE.get(dimension, 1.0)
    by_file = answer.get("videos")
    if not isinstance(by_file, dict):
        raise VBenchError(f"VBench's answer for {dimension} lists no videos: score again.")
    scores = []
    for index in range(count):
        value = by_file.get(NAME.format(index))
        if not isinstance(value, int | float) or not -1e-6 <= value / scale <= 1 + 1e-6:  # NaN fails the comparison
            raise VBenchError(f"VBench's {dimension} of video {index} is {value}, not a number from 0 to {scale:g}.")
        scores.append(value / scale)
    return scores


def score_videos(
    rows: Mapping[str, Sequence[Path]],
    *,
    dimensions: Sequence[str] = DIMENSIONS,
    on_progress: OnProgress = no_progress,
) -> VBenchScores:
    """Score rows of video files in every dimension that can be measured here; the others say why not.

    A dimension is measured for all rows or for none. VBenchError for no videos or an unknown dimension.
    """
    files = [Path(video) for videos in rows.values() for video in videos]
    unknown = [name for name in dimensions if name not in DIMENSIONS]
    if unknown:
        raise VBenchError(f"{unknown[0]} is none of the paper's dimensions: choose from {', '.join(DIMENSIONS)}.")
    empty = [row for row, videos in rows.items() if not videos]
    if empty or not rows:
        raise VBenchError(f"row {empty[0]!r} has no videos: give some." if empty else "there are no videos to score.")
    scores = VBenchScores({row: {} for row in rows}, {row: {} for row in rows})
    for done, dimension in enumerate(dimensions):
        on_progress(done, len(dimensions), dimension)
        why = unavailable(dimension)
        if not why:
            try:
                native = dimension == "temporal_flickering"
                scored = [file_flickering(file) for file in files] if native else run_vbench(dimension, files)
            except VBenchError as error:
                why = f"not measured: {error}"
        if why:
            scores.missing[dimension] = why
            continue
        values = iter(scored)
        for row, videos in rows.items():
            by_video = {str(video): next(values) for video in videos}
            scores.videos[row][dimension] = by_video
            scores.rows[row][dimension] = math.fsum(by_video.values()) / len(by_video)
    on_progress(len(dimensions), len(dimensions), "")
    return scores
