"""What `ablate-shareverse` compares: arms that differ in one switch, on one data set of hidden facts (paper, 4.3).

cross    the paper's cross-agent attention
within   the same blocks, of equal capacity, that see one's own agent only: the control
none     no such blocks
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

from model.presets import Preset
from tasks.benchmark.errors import BenchmarkError

SWITCHES = {"cross": "on", "within": "within", "none": "off"}
MODEL_PRESET = "bench"
DATASET = "shared-world-bench"
FRAMES, PLANNED_SIZE = 9, (48, 32)
"""Of the scenes' clips; width and height that their plan presets record."""


@dataclass(frozen=True)
class Setting:
    """One task at one distance, and its data set."""

    task: str
    distance: str
    length: float
    """Steps of a training, in those of the model preset. For "bench" at least 1.6 times the end of the learning curve's
    jump, where that is known (docs/BENCHMARK.md); demo: less."""
    model: str = MODEL_PRESET
    """A model preset: its name, or the path of a file."""

    @property
    def preset(self) -> Preset:
        """The model preset as it fits the scenes: their frames, raymaps that tell nothing of the future (trap 41:
        future leaks)."""
        preset = Preset.load(self.model)
        steps = round(self.length * preset.training.train_steps)
        return preset.replace(frames=FRAMES, raymap_centroid="first", train_steps=steps)

    @property
    def plan_preset(self) -> str:
        """The name of the plan preset, which is also that of the data set that preset `bench` takes."""
        if (self.task, self.distance) == ("appearance", "large"):
            return DATASET
        return f"{DATASET}-{self.distance if self.task == 'appearance' else self.task}"

    @property
    def dataset(self) -> str:
        """The name of the data set: models of another picture size have one of their own."""
        size = self.preset.video.width, self.preset.video.height
        return self.plan_preset if size == PLANNED_SIZE else f"{self.plan_preset}-{size[0]}x{size[1]}"

    @property
    def view_size(self) -> dict[str, int]:
        """What the plan preset's views must measure, for mosaics of views half as wide and high to fit the model."""
        return {"view_width": self.preset.video.width, "view_height": self.preset.video.height}

    @property
    def name(self) -> str:
        return f"{self.task} {self.distance}" + ("" if self.model == MODEL_PRESET else f", {self.preset.name}")


@dataclass(frozen=True)
class Arm:
    """One training."""

    setting: Setting
    name: str
    seed: int

    @property
    def preset(self) -> Preset:
        return self.setting.preset.replace(cross_agent=SWITCHES[self.name], seed=self.seed)

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


LARGE = Setting("appearance", "large", 1.0)
EVERYTHING = (
    LARGE,
    Setting("appearance", "medium", 2.0),
    Setting("binding", "large", 1.5),
    Setting("trajectory", "large", 2.0),
    Setting("appearance", "small", 3.0),  # the longest comes last
)
SIZES = {
    "demo": Ablation("demo", (Setting("appearance", "large", 0.75),), ("cross", "within"), (0,), (1,)),
    "quick": Ablation("quick", (LARGE,), ("cross", "within", "none"), (0,), (1, 20)),
    "full": Ablation("full", EVERYTHING, ("cross", "within", "none"), (0, 1, 2), (1, 20)),
}


def ablation_of(size: str, model: str = MODEL_PRESET) -> Ablation:
    """Return a size by name, its arms of a model preset. BenchmarkError for what there is not, PresetError."""
    if size not in SIZES:
        raise BenchmarkError(f"there is no size {size!r}: take one of {', '.join(SIZES)}.")
    views = Preset.load(model).video.views
    if views != "four":
        raise BenchmarkError(f"preset {model} has views {views!r}: a fact may be seen by any camera, take all four.")
    settings = tuple(dataclasses.replace(setting, model=model) for setting in SIZES[size].settings)
    return dataclasses.replace(SIZES[size], settings=settings)
