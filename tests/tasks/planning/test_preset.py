"""Plan presets are checked when they are read, with one sentence for what does not fit."""

from __future__ import annotations

import json
import math
from typing import get_args

import pytest
from hypothesis import given, settings

from model.presets import PresetError
from model.presets.messages import schema_of
from tasks.planning.errors import PlanningError
from tasks.planning.preset import FOLDER, Gates, PlanPreset, WeatherName
from tasks.planning.weather import WEATHERS
from tasks.recording.gates import DEFAULT_THRESHOLDS
from tests.junk import JUNK, refused_or_within_bounds, toml_of, unbounded

DEMO = PlanPreset.load("demo")


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.toml")))
def test_every_preset_loads_and_survives_json_and_toml(name, tmp_path):
    preset = PlanPreset.load(name)
    assert PlanPreset.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
    file = tmp_path / "copy.toml"
    file.write_text(toml_of(preset.to_dict()))
    assert PlanPreset.load(str(file)) == preset


def test_names_are_those_of_the_modules_that_use_them():
    assert get_args(WeatherName) == tuple(WEATHERS)
    assert set(Gates.__annotations__) == set(DEFAULT_THRESHOLDS)


def test_every_number_and_text_is_bounded_and_every_field_described():
    assert not unbounded(schema_of(PlanPreset))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trajectory_types": ["drifting"]}, r"trajectory_types\[0\] is 'drifting' in plan preset 'demo': give one"),
        ({"trajectory_types": []}, "trajectory_types is .*: give a list of 1 to 1000"),
        ({"weathers": ["hail"]}, r"weathers\[0\] is 'hail' .*: give one of clear_noon"),
        ({"windows": [0, 200]}, "need 345 ticks, and there are 250, in plan preset 'demo': raise ticks"),
        ({"windows": []}, "windows is .*: give a list of 1 to 1000"),
        ({"windows": [0, 0]}, "windows is .*: 0 stands in it twice"),
        ({"windows": [-1]}, r"windows\[0\] is -1 .*: give a whole number from 0"),
        ({"windows": 0}, "windows is 0 .*: give a list"),
        ({"frames": 50}, r"frames is 50 .*: it must be 8k\+1"),
        ({"frames": 49.0}, "frames is 49.0 .*: give a whole number"),
        ({"recordings_per_town": 0}, "recordings_per_town is 0 .*: give a whole number from 1"),
        ({"recordings_per_town": "3"}, "recordings_per_town is '3' .*: give a whole number"),
        ({"recordings_per_town": True}, "recordings_per_town is True .*: give a whole number"),
        ({"skip_unused_ticks": "yes"}, "skip_unused_ticks is 'yes' .*: give true or false"),
        ({"seed": -1}, "seed is -1 .*: give a whole number from 0"),
        ({"fixed_delta_s": 0.0}, "fixed_delta_s is 0.0 .*: give a finite number from 0.001 to 10"),
        ({"max_speed_mps": math.inf}, "max_speed_mps is inf .*: give a finite number"),
        ({"min_speed_mps": math.nan}, "min_speed_mps is nan .*: give a finite number"),
        ({"min_speed_mps": 9.5}, "min_speed_mps is 9.5 and max_speed_mps 9.0 in"),
        ({"view_width": 190}, "view_width is 190 .*: give a multiple of 4"),
        ({"motion_mode": "physics"}, "motion_mode is 'physics' .*: give kinematic"),
        ({"towns": "Mini01"}, "towns is 'Mini01' .*: give a list of 1 to 1000"),
        ({"towns": []}, "towns is .*: give a list of 1 to 1000"),
        ({"towns": None}, "towns is None .*: give a list"),
        ({"towns": [["Mini01"]]}, r"towns\[0\] is \['Mini01'\] .*: give a map's name"),
        ({"towns": ["../Mini01"]}, r"towns\[0\] is '../Mini01' .*: give a map's name without slashes"),
        ({"towns": ["Mini01", "Mini01"]}, "towns is .*: Mini01 stands in it twice"),
        ({"val_towns": ["Mini11"]}, "Mini11 is in val_towns and in test_towns in plan preset 'demo'"),
        ({"test_towns": ["Atlantis"]}, "test_towns has 'Atlantis' in .*: held-out towns are of its towns, Mini01"),
        ({"scenes": "hidden_facts", "fact_task": "binding", "train_distances": ["small"]}, "fact_task is 'binding'"),
        ({"gates": {"min_lum": 1.0}}, "gates of plan preset 'demo' has no field 'min_lum': did you mean min_luminance"),
        ({"gates": {"min_luminance": math.nan}}, "min_luminance is nan .*: give a finite number from 0 to 255"),
        ({"gates": {"max_collisions": 0.5}}, "max_collisions is 0.5 .*: give a whole number"),
        ({"colour": 1}, "plan preset 'demo' has no field 'colour': its fields are"),
        ({"weather": ["hail"]}, "plan preset 'demo' has no field 'weather': did you mean weathers"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_named(changes, sentence):
    with pytest.raises(PresetError, match=sentence) as raised:
        DEMO.replace(**changes)
    assert isinstance(raised.value, PlanningError)


def test_a_misspelt_field_is_told_before_the_one_that_is_missing():
    with pytest.raises(PlanningError, match="plan preset 'x' has no field 'twons': did you mean towns"):
        PlanPreset.from_dict({"name": "x", "twons": ["Mini01"], "val_towns": [], "test_towns": []})
    with pytest.raises(PlanningError, match="towns is missing in plan preset 'x': give a list"):
        PlanPreset.from_dict({"name": "x"})


def test_held_out_towns_follow_the_towns():
    fewer = DEMO.replace(towns=["Mini01", "Mini11"])
    assert (fewer.val_towns, fewer.test_towns) == ((), ("Mini11",))
    assert [fewer.split_of(town) for town in fewer.towns] == ["train", "test"]
    assert DEMO.replace(towns=["A", "B"], val_towns=["B"]).val_towns == ("B",)


@given(JUNK)
@settings(max_examples=40, deadline=None)
def test_no_field_takes_what_it_should_not(value):
    for name in DEMO.flat():
        refused_or_within_bounds(DEMO, name, value)
    for damaged in ({"gates": {"min_luminance": value}}, {"windows": [value]}, {"towns": [value, "Mini01"]}):
        ((name, part),) = damaged.items()
        refused_or_within_bounds(DEMO, name, part)


def test_values_that_fit_are_taken():
    for name, value in DEMO.flat().items():
        assert refused_or_within_bounds(DEMO, name, value), name
