"""What the paper's ablations compare on an ordinary data set (paper, section 5.3), with a control of its claim.

base     four views, raymaps, cross-agent attention
front    trained on the front view alone, with as many tokens; compared on front views at one resolution
raw      raw camera values in place of raymaps
within   blocks of equal capacity that see one's own agent only: the control (trap 39: ablations need controls)
off      no cross-agent blocks
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.presets import Preset, VideoConfig
from tasks.runs.run import Run, create_run

EXPERIMENT = "paper-ablations"
BASE = "base"
SWITCHES: dict[str, dict[str, Any]] = {
    BASE: {"views": "four", "camera": "raymap", "cross_agent": "on"},
    "front": {"views": "front", "camera": "raymap", "cross_agent": "on"},
    "raw": {"views": "four", "camera": "raw", "cross_agent": "on"},
    "within": {"views": "four", "camera": "raymap", "cross_agent": "within"},
    "off": {"views": "four", "camera": "raymap", "cross_agent": "off"},
}


@dataclass(frozen=True)
class Comparison:
    """The base against one other arm."""

    other: str
    question: str
    front: bool = False
    """On front views at one resolution."""
    control: str = ""
    """An arm without what is claimed: where it is as good as the base, a gain is not owed to the claim."""


COMPARISONS = (
    Comparison("front", "four views against the front view alone", front=True),
    Comparison("raw", "raymaps against raw camera values"),
    Comparison("off", "cross-agent attention on against off", control="within"),
    Comparison("within", "cross-agent attention against blocks of equal capacity within one agent"),
)


@dataclass(frozen=True)
class PaperArm:
    """One training."""

    name: str
    preset: Preset

    @property
    def seed(self) -> int:
        return self.preset.training.seed

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"


@dataclass(frozen=True)
class PaperStudy:
    """All trainings of the comparison on one data set."""

    dataset: str
    preset: Preset
    """Of the base, but for the switches and the seed."""
    seeds: tuple[int, ...]

    @property
    def arms(self) -> list[PaperArm]:
        """Seed by seed, the base first."""
        return [
            PaperArm(name, self.preset.replace(seed=seed, **SWITCHES[name]))
            for seed, name in itertools.product(self.seeds, SWITCHES)
        ]

    @property
    def sampling_steps(self) -> tuple[int, ...]:
        """One, which counts, and the preset's, which are shown beside."""
        return tuple(sorted({1, self.preset.sampling.sampling_steps}))

    @property
    def front_size(self) -> tuple[int, int]:
        """Height and width of a front view at which all arms are compared: the smaller of what they generate."""
        sizes = [front_view_size(arm.preset.video) for arm in self.arms]
        return min(height for height, _ in sizes), min(width for _, width in sizes)

    def open_runs(self) -> list[Run]:
        """Return the arms' trainings, known or new. ShardError without a finished data set."""
        return [create_run(self.dataset, arm.preset, EXPERIMENT, mark_last=False) for arm in self.arms]


def front_view_size(video: VideoConfig) -> tuple[int, int]:
    """Return height and width of the front view that a model generates."""
    parts = 1 if video.views == "front" else 2
    return video.height // parts, video.width // parts


def paper_study(dataset: str, preset: str, seeds: Sequence[int]) -> PaperStudy:
    """Return the study of a model preset by name, or a file, on a data set. PresetError."""
    return PaperStudy(dataset, Preset.load(preset), tuple(seeds))


def studies_of(size: str, study: str | None) -> tuple[str, ...]:
    """Return what a size of the comparison runs, "sharing" (hidden facts) and "paper": `study` where one is given
    ("all": both), else both for full and "sharing" for what must be quick."""
    chosen = study or ("all" if size == "full" else "sharing")
    return ("sharing", "paper") if chosen == "all" else (chosen,)
