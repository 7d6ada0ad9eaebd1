"""Plan presets: what to record, TOML files in presets/."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tasks.planning.errors import PlanningError
from tasks.planning.weather import WEATHERS

FOLDER = Path(__file__).with_name("presets")
TYPES = ("straight_meeting", "following", "crossing", "turning_meeting", "merging", "diverging")
"""The paper's Figure 1, in its order."""

FACT_TASKS, FACT_DISTANCES = ("appearance", "binding", "trajectory"), ("large", "medium", "small")


@dataclass(frozen=True)
class PlanPreset:
    """One plan. Lists are ordered: towns and types are laid out as a Latin square over them."""

    name: str
    towns: tuple[str, ...]
    val_towns: tuple[str, ...]
    test_towns: tuple[str, ...]
    trajectory_types: tuple[str, ...] = TYPES
    weathers: tuple[str, ...] = tuple(WEATHERS)
    scenes: str = "meetings"
    """"meetings" of the six types, or "hidden_facts": scenes of the benchmark (hidden_facts.py)."""
    fact_task: str = "appearance"
    fact_distance: str = "large"
    train_distances: tuple[str, ...] = ()
    """Distances of the training scenes in turn, a curriculum; empty: `fact_distance`."""
    recordings_per_town: int = 3
    test_recordings_per_town: int = 3
    """Scenes in a test town; of hidden facts only."""
    repeats: int = 1
    """Recordings of one site, each with jitter of its own."""
    short_towns: str = "refuse"
    """Where a town has too few sites for its share: "refuse" the plan, or record "less" there and say what lacks."""
    spare_share: float = 0.1
    """Spare scenes of a town and type, as a share of its planned ones, rounded up; recorded in place of lost ones."""
    other_trajectories: bool = False
    """A second recording of every val and test scene in which agent 1 drives otherwise (paper, section 5.2)."""
    seed: int = 0
    ticks: int = 250
    stride: int = 3
    frames: int = 49
    windows: tuple[int, ...] = (0, 49, 98)
    fixed_delta_s: float = 1 / 30
    view_width: int = 192
    view_height: int = 128
    """Of a rendered view; what is stored is half as wide and high."""
    motion_mode: str = "kinematic"
    skip_unused_ticks: bool = False
    """Go from one stored tick straight to the next. Kinematic cars need no ticks between; CARLA's picture does
    (temporal anti-aliasing), the embedded server's does not."""
    ground_truth_splits: tuple[str, ...] = ("val", "test")
    min_speed_mps: float = 5.0
    max_speed_mps: float = 9.0
    start_jitter_s: float = 0.5
    """Random shift of each car along its way, as time at its speed."""
    lateral_jitter_m: float = 0.3
    gates: dict[str, float] = dataclasses.field(default_factory=dict)
    """Thresholds of the recording's quality gates that differ from their defaults."""

    @classmethod
    def load(cls, name_or_path: str) -> PlanPreset:
        """Read a preset by name or path. PlanningError names what does not fit."""
        path = Path(name_or_path) if name_or_path.endswith(".toml") else FOLDER / f"{name_or_path}.toml"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
            raise PlanningError(f"there is no plan preset {name_or_path!r}: take one of {known}, or a .toml file.")
        try:
            values = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as error:
            raise PlanningError(f"{path} is no TOML: {error}") from error
        return cls.from_dict({"name": path.stem, **values})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PlanPreset:
        known = {f.name for f in fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise PlanningError(
                f"a plan preset has no field {min(unknown)!r}: its fields are {', '.join(sorted(known))}."
            )
        listed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return checked(cls(**listed))

    def replace(self, **changes: Any) -> PlanPreset:
        """Return a preset with fields changed; held-out towns follow a changed list of towns."""
        values = dataclasses.asdict(self) | changes
        if "towns" in changes:
            for split in ("val_towns", "test_towns"):
                values[split] = tuple(town for town in values[split] if town in changes["towns"])
        return PlanPreset.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def split_of(self, town: str) -> str:
        return "val" if town in self.val_towns else "test" if town in self.test_towns else "train"


def checked(preset: PlanPreset) -> PlanPreset:
    """Return the preset, or raise PlanningError for the first value that cannot work."""
    for name, values, allowed in (
        ("trajectory type", preset.trajectory_types, TYPES),
        ("weather", preset.weathers, tuple(WEATHERS)),
        ("held-out town", (*preset.val_towns, *preset.test_towns), preset.towns),
        ("scenes", (preset.scenes,), ("meetings", "hidden_facts")),
        ("fact_task", (preset.fact_task,), FACT_TASKS),
        ("fact_distance", (preset.fact_distance, *preset.train_distances), FACT_DISTANCES),
        ("short_towns", (preset.short_towns,), ("refuse", "less")),
        ("ground-truth split", preset.ground_truth_splits, ("train", "val", "test")),
    ):
        for value in values:
            if value not in allowed:
                raise PlanningError(f"{name} {value!r} is unknown: it is one of {', '.join(allowed)}.")
    shared = set(preset.val_towns) & set(preset.test_towns)
    if shared:
        raise PlanningError(f"town {min(shared)} is both in val_towns and in test_towns: a town belongs to one split.")
    if not preset.towns or not preset.trajectory_types or not preset.weathers:
        raise PlanningError("a plan needs at least one town, one trajectory type and one weather.")
    for name in ("recordings_per_town", "test_recordings_per_town", "repeats", "ticks", "stride"):
        if getattr(preset, name) < 1:
            raise PlanningError(f"{name} is {getattr(preset, name)}: give 1 or more.")
    if not 0 <= preset.spare_share <= 1:
        raise PlanningError(f"spare_share is {preset.spare_share}: give a share from 0 to 1.")
    if preset.frames % 8 != 1:
        raise PlanningError(f"frames is {preset.frames}: it must be 8k+1 (9, 17, 49, ...), or the VAE decodes wrongly.")
    if preset.scenes == "hidden_facts" and preset.fact_task != "appearance":
        for distance in (preset.fact_distance, *preset.train_distances):
            if distance != "large":
                raise PlanningError(f"fact_distance {distance!r} belongs to the task appearance: give large.")
    last = max(preset.windows) + preset.stride * (preset.frames - 1)
    if last >= preset.ticks or min(preset.windows) < 0:
        raise PlanningError(f"the windows {list(preset.windows)} need {last + 1} ticks, and there are {preset.ticks}.")
    if preset.view_width % 4 or preset.view_height % 4:
        raise PlanningError(f"a view of {preset.view_width}x{preset.view_height} cannot be halved to even sides.")
    if not 0 < preset.min_speed_mps <= preset.max_speed_mps:
        raise PlanningError(f"speeds from {preset.min_speed_mps} to {preset.max_speed_mps} m/s make no range.")
    return preset
