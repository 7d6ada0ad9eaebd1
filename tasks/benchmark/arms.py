"""What `ablate-shareverse` compares: arms that differ in one switch, on one data set of hidden facts (paper, 4.3).

cross    the paper's cross-agent attention
within   the same blocks, of equal capacity, that see one's own agent only: the control
none     no such blocks
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from model.presets import Preset
from tasks.benchmark.errors import BenchmarkError

SWITCHES = {"cross": "on", "within": "within", "none": "off"}
MODEL_PRESET = "bench"
DATASET = "shared-world-bench"


@dataclass(frozen=True)
class Setting:
    """One task at one distance, and its data set."""

    task: str
    distance: str
    train_steps: int
    """At least 1.6 times the end of the learning curve's jump, where that is known (docs/BENCHMARK.md); demo: less."""

    @property
    def dataset(self) -> str:
        """The name of the data set, which is that of its plan preset too."""
        if (self.task, self.distance) == ("appearance", "large"):
            return DATASET
        return f"{DATASET}-{self.distance if self.task == 'appearance' else self.task}"

    @property
    def name(self) -> str:
        return f"{self.task} {self.distance}"


@dataclass(frozen=True)
class Arm:
    """One training."""

    setting: Setting
    name: str
    seed: int

    @property
    def preset(self) -> Preset:
        return Preset.load(MODEL_PRESET).replace(
            cross_agent=SWITCHES[self.name], seed=self.seed, train_steps=self.setting.train_steps
        )

    def __str__(self) -> str:
        return f"{self.setting.name}, {self.name}, seed {self.seed}"


@dataclass(frozen=True)
class Ablation:
    """A size of the comparison."""

    size: str
    settings: tuple[Setting, ...]
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    sampling_steps: tuple[int, ...]
    """The first counts; others are shown beside."""

    def arms_of(self, setting: Setting) -> list[Arm]:
        return [Arm(setting, name, seed) for seed, name in itertools.product(self.seeds, self.arms)]


LARGE = Setting("appearance", "large", 800)
EVERYTHING = (
    LARGE,
    Setting("appearance", "medium", 1600),
    Setting("binding", "large", 1200),
    Setting("trajectory", "large", 1600),
    Setting("appearance", "small", 2400),  # the longest comes last
)
SIZES = {
    "demo": Ablation("demo", (Setting("appearance", "large", 600),), ("cross", "within"), (0,), (1,)),
    "quick": Ablation("quick", (LARGE,), ("cross", "within", "none"), (0,), (1, 20)),
    "full": Ablation("full", EVERYTHING, ("cross", "within", "none"), (0, 1, 2), (1, 20)),
}


def ablation_of(size: str) -> Ablation:
    """Return a size by name. BenchmarkError for another."""
    if size not in SIZES:
        raise BenchmarkError(f"there is no size {size!r}: take one of {', '.join(SIZES)}.")
    return SIZES[size]
