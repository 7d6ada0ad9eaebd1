"""Plan presets: what to record, TOML files in presets/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, ConfigDict, Field, model_validator, with_config
from typing_extensions import TypedDict

from model.presets.base import Count, CountOrNone, Frames, Listed, NamedPreset, NotEmpty, OverridesOf, PresetError, Seed
from model.presets.messages import FieldConflict
from tasks.planning.errors import PlanningError

FOLDER = Path(__file__).with_name("presets")

TrajectoryType = Literal["straight_meeting", "following", "crossing", "turning_meeting", "merging", "diverging"]
"""The paper's Figure 1, in its order."""
TYPES: tuple[TrajectoryType, ...] = get_args(TrajectoryType)
WeatherName = Literal["clear_noon", "wet_overcast", "foggy_sunset"]
"""Those of weather.py."""
Split = Literal["train", "val", "test"]
Distance = Literal["large", "medium", "small"]
Town = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100,
        pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$",
        json_schema_extra={"wording": "a map's name without slashes"},
    ),
]
"""A map's name without its folder; its road network is written to a file of that name."""
Pixels = Annotated[int, Field(ge=4, le=8192, multiple_of=4)]
Speed = Annotated[float, Field(gt=0, le=100)]
Tick = Annotated[int, Field(ge=0, le=100_000)]
Brightness = Annotated[float, Field(ge=0, le=255)]
Limit = Annotated[int, Field(ge=0, le=1_000_000_000)]


def distinct(values: tuple) -> tuple:
    """Refuse lists that name something twice."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value} stands in it twice, name it once")
    return values


class PlanPresetError(PlanningError, PresetError):
    """A plan preset that does not exist or does not make sense: what, which value, what to do."""


@with_config(ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class Gates(TypedDict, total=False):
    """Thresholds of tasks/recording/gates.py; those that are not given have their defaults."""

    min_luminance: Brightness
    min_motion: Brightness
    max_frozen_frames: Limit
    max_collisions: Limit
    min_visible_frames: Limit
    min_fact_pixels: Limit
    min_told_pixels: Limit


class PlanPreset(NamedPreset):
    """One plan. Lists are ordered: towns and types are laid out as a Latin square over them."""

    kind: ClassVar[str] = "plan preset"
    folder: ClassVar[Path] = FOLDER
    error: ClassVar[type[PresetError]] = PlanPresetError

    towns: Annotated[NotEmpty[Town], AfterValidator(distinct)]
    """In which to record."""
    val_towns: Annotated[Listed[Town], AfterValidator(distinct)]
    """Those of `towns` that are held out for validation."""
    test_towns: Annotated[Listed[Town], AfterValidator(distinct)]
    """Those of `towns` that are held out for the test."""
    trajectory_types: NotEmpty[TrajectoryType] = TYPES
    """How the two cars drive."""
    weathers: NotEmpty[WeatherName] = get_args(WeatherName)
    """Light and weather."""
    scenes: Literal["meetings", "hidden_facts"] = "meetings"
    """"meetings" of the six types, or "hidden_facts": scenes of the benchmark (hidden_facts.py)."""
    fact_task: Literal["appearance", "binding", "trajectory"] = "appearance"
    """Of hidden facts: what is asked."""
    fact_distance: Distance = "large"
    """Of hidden facts: how far the fact stands; other tasks than appearance have "large" alone."""
    train_distances: Listed[Distance] = ()
    """Distances of the training scenes in turn, a curriculum; empty: `fact_distance`."""
    recordings_per_town: Count = 3
    """Scenes in every town, or on average over the towns (`shares`); of hidden facts, in every training town."""
    test_recordings_per_town: Count = 3
    """Scenes in a test town; of hidden facts only."""
    repeats: Count = 1
    """Recordings of one site, each with jitter of its own."""
    recordings_per_junction: CountOrNone = 0
    """Of one trajectory type at one junction, at most; 0: as many as its sites give. With `shares` "capacity"."""
    shares: Literal["equal", "capacity"] = "equal"
    """How recordings are dealt to the towns: every town gets its "equal" share of every type, or each type goes to the
    towns as evenly as their "capacity" allows, and there to junctions, approaches and sites in the same way."""
    short_towns: Literal["refuse", "less"] = "refuse"
    """Where there are too few sites for a share: "refuse" the plan, or record "less" and say what lacks."""
    spare_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Spare scenes of a town and type, as a share of its planned ones, rounded up; recorded in place of lost ones."""
    other_trajectories: bool = False
    """A second recording of every val and test scene in which agent 1 drives otherwise (paper, section 5.2)."""
    seed: Seed = 0
    """Of everything that is drawn."""
    ticks: Annotated[int, Field(ge=1, le=100_000)] = 250
    """Of the simulation per recording."""
    stride: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Ticks from one stored frame to the next."""
    frames: Frames = 49
    """Per clip."""
    windows: Annotated[NotEmpty[Tick], AfterValidator(distinct)] = (0, 49, 98)
    """The ticks at which a recording's clips start."""
    fixed_delta_s: Annotated[float, Field(ge=0.001, le=10)] = 1 / 30
    """Simulated time per tick."""
    view_width: Pixels = 192
    """Of a rendered view; what is stored is half as wide and high."""
    view_height: Pixels = 128
    """As the width."""
    motion_mode: Literal["kinematic"] = "kinematic"
    """Cars are set to the plan's poses tick by tick."""
    skip_unused_ticks: bool = False
    """Go from one stored tick straight to the next. Kinematic cars need no ticks between; CARLA's picture does
    (temporal anti-aliasing), the embedded server's does not."""
    ground_truth_splits: Annotated[Listed[Split], AfterValidator(distinct)] = ("val", "test")
    """Splits that are recorded with depth and instance ids."""
    min_speed_mps: Speed = 5.0
    """Of the slowest car."""
    max_speed_mps: Speed = 9.0
    """Of the fastest car."""
    start_jitter_s: Annotated[float, Field(ge=0, le=60)] = 0.5
    """Random shift of each car along its way, as time at its speed."""
    lateral_jitter_m: Annotated[float, Field(ge=0, le=10)] = 0.3
    """Random shift of each car across its lane."""
    max_acceleration_mps2: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Along the path, at every tick. 0: the speed changes in steps, 2 m/s^2 on average but more at single ticks."""
    max_oncoming_m: Annotated[float, Field(gt=0, le=50)] = 20.0
    """Of straight meetings: the most between the middles of the two lanes."""
    gates: Gates = Field(default_factory=Gates)
    """Thresholds of the recording's quality gates that differ from their defaults."""

    @model_validator(mode="after")
    def towns_belong_to_one_split(self) -> Self:
        for name in ("val_towns", "test_towns"):
            for town in getattr(self, name):
                if town not in self.towns:
                    raise FieldConflict(
                        f"{name} has {town!r}", f"held-out towns are of its towns, {', '.join(self.towns)}"
                    )
        if shared := sorted({*self.val_towns} & {*self.test_towns}):
            raise FieldConflict(f"{shared[0]} is in val_towns and in test_towns", "a town belongs to one split")
        return self

    @model_validator(mode="after")
    def windows_end_before_the_recording(self) -> Self:
        last = max(self.windows) + self.stride * (self.frames - 1)
        if last >= self.ticks:
            raise FieldConflict(
                f"the windows {list(self.windows)} need {last + 1} ticks, and there are {self.ticks},",
                "raise ticks, or lower windows, stride or frames",
            )
        return self

    @model_validator(mode="after")
    def speeds_make_a_range(self) -> Self:
        if self.min_speed_mps > self.max_speed_mps:
            raise FieldConflict(
                f"min_speed_mps is {self.min_speed_mps} and max_speed_mps {self.max_speed_mps}",
                "the first must not be above the second",
            )
        return self

    @model_validator(mode="after")
    def capacity_is_of_meetings(self) -> Self:
        if self.scenes == "hidden_facts" and self.shares == "capacity":
            raise FieldConflict(
                "shares is 'capacity' and scenes 'hidden_facts'", "only meetings have shares by capacity"
            )
        if self.shares == "equal" and self.recordings_per_junction:
            raise FieldConflict("recordings_per_junction is given and shares 'equal'", "set shares to 'capacity'")
        return self

    @model_validator(mode="after")
    def only_appearance_has_distances(self) -> Self:
        if self.scenes == "hidden_facts" and self.fact_task != "appearance":
            for distance in (self.fact_distance, *self.train_distances):
                if distance != "large":
                    raise FieldConflict(
                        f"fact_task is {self.fact_task!r} with distance {distance!r}",
                        "only appearance has distances, give large",
                    )
        return self

    def replace(self, **changes: Any) -> Self:
        """Return a preset with fields changed; held-out towns follow a changed list of towns."""
        towns = changes.get("towns")
        if isinstance(towns, list | tuple):
            for split in ("val_towns", "test_towns"):
                changes.setdefault(split, [town for town in getattr(self, split) if town in towns])
        return super().replace(**changes)

    def split_of(self, town: str) -> Split:
        """Return which split a town's recordings belong to."""
        return "val" if town in self.val_towns else "test" if town in self.test_towns else "train"


PlanOverrides = Annotated[dict[str, Any], OverridesOf(PlanPreset)]
"""Fields of a plan preset that change."""
