"""The flows' parameters: typed, checked by the server before anything runs, and understood by the steps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from prefect.exceptions import ParameterTypeError

from flows import (
    ablate_shareverse,
    collect_dataset,
    evaluate_shareverse,
    shareverse,
    train_base,
    train_shareverse,
)
from model.presets import Preset, PresetError
from model.presets.messages import schema_of
from tasks.planning.preset import PlanPreset
from tests.junk import JUNK

ROOT = Path(__file__).resolve().parents[2]
FLOWS = {
    flow.name: flow
    for flow in (
        collect_dataset.collect_dataset,
        train_shareverse.train_shareverse,
        train_base.train_base,
        evaluate_shareverse.evaluate_shareverse,
        ablate_shareverse.ablate_shareverse,
        shareverse.shareverse,
    )
}
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def schema(name: str) -> dict[str, Any]:
    """What the server checks parameters against: Prefect's schema, and no unknown names."""
    found = FLOWS[name].parameters.model_dump()
    return {"type": "object", "additionalProperties": False, **found}


def flow_of(deployment: dict[str, Any]) -> str:
    return deployment["entrypoint"].split(":")[1].replace("_", "-")


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: f"{flow_of(d)}/{d['name']}")
def test_deployments_give_parameters_that_pass(deployment):
    path, function = deployment["entrypoint"].split(":")
    assert f"def {function}(" in (ROOT / path).read_text()
    jsonschema.validate(deployment["parameters"], schema(flow_of(deployment)))
    assert deployment["work_pool"]["name"] == ("cluster" if deployment["name"] == "paper" else "local")


@pytest.mark.parametrize(
    "deployment", [d for d in DEPLOYMENTS if flow_of(d) == "ablate-shareverse"], ids=lambda d: d["name"]
)
def test_the_papers_ablations_have_clips_as_large_and_long_as_their_model(deployment):
    defaults = {name: part.get("default") for name, part in schema("ablate-shareverse")["properties"].items()}
    given = defaults | deployment["parameters"]
    plan, video = PlanPreset.load(given["paper_dataset"]), Preset.load(given["paper_preset"]).video
    assert plan.view_width >= video.width
    assert plan.view_height >= video.height
    assert plan.frames >= video.frames


@pytest.mark.parametrize(
    ("flow", "parameters"),
    [
        ("collect-dataset", {"servers": 0}),
        ("collect-dataset", {"servers": "two"}),
        ("collect-dataset", {"trajectory_types": ["flying"]}),
        ("collect-dataset", {"weathers": ["snow"]}),
        ("collect-dataset", {"simulator": "unity"}),
        ("collect-dataset", {"dataset": "../elsewhere"}),
        ("collect-dataset", {"sead": 1}),
        ("collect-dataset", {"towns": []}),
        ("collect-dataset", {"towns": ["../Mini01"]}),
        ("collect-dataset", {"trajectory_types": []}),
        ("collect-dataset", {"recordings_per_town": 10**30}),
        ("collect-dataset", {"seed": 2**32}),
        ("collect-dataset", {"overrides": {"repeats": 0}}),
        ("collect-dataset", {"overrides": {"repeat": 1}}),
        ("collect-dataset", {"overrides": {"gates": {"min_luminance": -1}}}),
        ("collect-dataset", {"overrides": ["repeats"]}),
        ("train-shareverse", {"learning_rate": 0}),
        ("train-shareverse", {"learning_rate": math.inf}),
        ("train-shareverse", {"processes": 10**9}),
        ("train-shareverse", {"seed": True}),
        ("train-shareverse", {"batch_size": 4}),  # one of the overrides
        ("train-shareverse", {"overrides": {"ema_decay": 1}}),
        ("train-shareverse", {"overrides": {"ema_decay": "0.99"}}),
        ("train-shareverse", {"overrides": {"ema": 0.99}}),
        ("train-shareverse", {"overrides": {"views": "rear"}}),
        ("evaluate-shareverse", {"run_id": "../../etc"}),
        ("ablate-shareverse", {"test_towns": []}),
        ("train-shareverse", {"train_steps": -1}),
        ("train-shareverse", {"cross_agent": "maybe"}),
        ("train-shareverse", {"dataset": "a/b"}),
        ("evaluate-shareverse", {"split": "train"}),
        ("shareverse", {"target": "moon"}),
        ("ablate-shareverse", {"size": "huge"}),
        ("ablate-shareverse", {"servers": 0}),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_runs(flow, parameters):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(parameters, schema(flow))


def test_the_parameters_are_these():
    """What people type and scripts hold; anything else of a preset is reached by `overrides`."""
    assert {name: list(schema(name)["properties"]) for name in FLOWS} == {
        "collect-dataset": [
            "dataset", "plan_preset", "overrides", "simulator", "carla_executable", "carla_options", "maps_dir",
            "servers", "towns", "trajectory_types", "weathers", "recordings_per_town", "seed", "samples_per_shard",
            "recording_limit_s", "run_limit_s", "retry_quarantined",
        ],
        "train-shareverse": [
            "dataset", "preset", "overrides", "run_name", "processes", "seed", "learning_rate", "train_steps",
            "cross_agent",
        ],
        "train-base": [
            "dataset", "plan_preset", "simulator", "carla_executable", "servers", "preset", "overrides", "run_name",
            "processes", "seed", "learning_rate", "train_steps",
        ],
        "evaluate-shareverse": ["dataset", "run_id", "split", "without_run_id"],
        "ablate-shareverse": [
            "size", "simulator", "carla_executable", "carla_options", "maps_dir", "servers", "towns", "test_towns",
            "bench_preset", "arms_at_a_time", "study", "paper_dataset", "paper_preset",
        ],
        "shareverse": ["target"],
    }  # fmt: skip


def test_all_parameters_but_the_overrides_are_flat():
    for name in FLOWS:
        for parameter, part in schema(name)["properties"].items():
            kinds = {part.get("type")} | {option.get("type") for option in part.get("anyOf", [])}
            assert ("object" in kinds) == (parameter == "overrides"), (name, parameter)
            assert "$ref" not in json.dumps(part), (name, parameter)


def given_type(flow: str, parameter: str) -> dict[str, Any]:
    """The schema of an optional parameter when it is given."""
    first, none = schema(flow)["properties"][parameter]["anyOf"]
    assert none == {"type": "null"}
    return first


def flat_schema(preset: type) -> dict[str, dict[str, Any]]:
    """The schema of every field of a preset by its bare name."""
    whole = schema_of(preset)["properties"]
    return {
        name: (whole[section]["properties"] if section else whole)[name]
        for name, (section, _) in preset.flat_fields().items()
    }


@pytest.mark.parametrize(("flow", "preset"), [("collect-dataset", PlanPreset), ("train-shareverse", Preset)])
def test_overrides_are_all_fields_of_the_preset_as_it_bounds_them(flow, preset):
    overrides = given_type(flow, "overrides")
    assert overrides == {"type": "object", "additionalProperties": False, "properties": flat_schema(preset)}
    assert '"default"' not in json.dumps(overrides)  # a form would send it, over what the named preset has


@pytest.mark.parametrize(
    ("flow", "preset", "parameters"),
    [
        ("collect-dataset", PlanPreset, ["towns", "trajectory_types", "weathers", "recordings_per_town", "seed"]),
        ("train-shareverse", Preset, ["seed", "learning_rate", "train_steps", "cross_agent"]),
    ],
)
def test_parameters_have_the_bounds_of_the_presets(flow, preset, parameters):
    fields = flat_schema(preset)
    for name in parameters:
        told = {key: value for key, value in fields[name].items() if key != "description"}
        assert {"minItems": 1, **given_type(flow, name)} == {"minItems": 1, **told}, name


@pytest.mark.parametrize(
    ("flow", "parameters", "sentence"),
    [
        ("train-shareverse", {"learning_rate": math.nan}, "finite number"),
        ("train-shareverse", {"learning_rate": math.inf}, "finite number"),
        ("train-shareverse", {"learning_rate": "1e-3"}, "valid number"),
        ("train-shareverse", {"train_steps": True}, "valid integer"),
        ("train-shareverse", {"overrides": {"ema_decay": math.nan}}, "ema_decay is nan in overrides: give a finite"),
        ("train-shareverse", {"overrides": {"ema": 0.9}}, "overrides has no field 'ema': did you mean"),
        ("train-shareverse", {"overrides": {"batch_size": True}}, "batch_size is True in overrides"),
        ("collect-dataset", {"overrides": {"windows": ["0"]}}, r"windows\[0\] is '0' in overrides: give a"),
    ],
)
def test_what_json_schema_cannot_say_is_refused_when_the_flow_starts(flow, parameters, sentence):
    with pytest.raises(ParameterTypeError, match=sentence):
        FLOWS[flow].validate_parameters(parameters)


@given(JUNK)
@settings(max_examples=12, deadline=None)
def test_overrides_take_only_what_the_preset_takes(value):
    preset = Preset.load("single-gpu").replace(micro_batch_size=1)
    for name in ("ema_decay", "batch_size", "views", "image_noise", "base_model"):
        try:
            FLOWS["train-shareverse"].validate_parameters({"overrides": {name: value}})
        except ParameterTypeError:
            continue
        assert preset.replace(**{name: value}).flat()[name] == value


def test_collecting_hands_its_overrides_to_the_plan(monkeypatch):
    calls: dict[str, tuple] = {}
    monkeypatch.setattr(collect_dataset, "plan_recordings", lambda *given: calls.update(plan=given))
    monkeypatch.setattr(collect_dataset, "record_clips", lambda *given, **named: calls.update(record=given) or {})
    monkeypatch.setattr(collect_dataset, "write_dataset", lambda *given: {"given": given})
    done = collect_dataset.collect_dataset.fn(
        "mine", towns=["Mini01", "Mini02"], seed=3, servers=1, overrides={"repeats": 2}
    )
    assert done == {"given": ("mine", 32)}
    dataset, preset, overrides, simulator = calls["plan"]
    assert (dataset, preset) == ("mine", "demo")
    changed = PlanPreset.load(preset).replace(**overrides)
    assert (changed.towns, changed.seed, changed.repeats) == (("Mini01", "Mini02"), 3, 2)
    assert calls["record"] == ("mine", simulator, 1)
    assert list(calls) == ["plan", "record"]


TRAINING = {"seed": 1, "learning_rate": 0.5, "train_steps": 9, "cross_agent": "within"}
OVERRIDES = {"batch_size": 8, "ema_decay": 0.5, "views": "front", "base_model": "here"}


@pytest.fixture
def trained(monkeypatch):
    """The train flow with its steps written down instead of run."""
    calls: list[tuple] = []
    opened = {"run_id": "abc", "finished": None}

    def step(name, answer):
        return lambda *given: calls.append((name, *given)) or answer

    for name, answer in (("open_run", opened), ("encode_clips", "latents"), ("train_model", None), ("score_run", {})):
        monkeypatch.setattr(train_shareverse, name, step(name, answer))
    return calls, opened


def test_training_hands_every_parameter_to_the_preset(trained):
    calls, _ = trained
    train_shareverse.train_shareverse.fn(dataset="mine", run_name="x", processes=3, overrides=OVERRIDES, **TRAINING)
    flat = Preset.load("demo").replace(**calls[0][3]).flat()
    assert {name: flat[name] for name in TRAINING | OVERRIDES} == TRAINING | OVERRIDES
    assert calls == [
        ("open_run", "mine", "demo", TRAINING | OVERRIDES, "x", 3),
        ("encode_clips", "mine", "abc"),
        ("train_model", "abc", "latents", 3),
        ("score_run", "mine", "abc"),
    ]


def test_what_is_given_twice_is_refused_before_anything_runs(trained):
    calls, _ = trained
    with pytest.raises(PresetError, match="seed is given by itself and in overrides: give it once"):
        train_shareverse.train_shareverse.fn(seed=1, overrides={"seed": 2})
    assert not calls


def test_what_is_not_given_stays_as_the_preset_has_it(trained):
    calls, _ = trained
    train_shareverse.train_shareverse.fn()
    assert calls[0] == ("open_run", "demo", "demo", {}, "", 2)


def test_a_finished_run_is_not_trained_again(trained):
    calls, opened = trained
    opened["finished"] = {"metrics": {}}
    assert train_shareverse.train_shareverse.fn() is opened
    assert [name for name, *_ in calls] == ["open_run"]


@pytest.mark.parametrize("target", ["local", "paper"])
def test_the_whole_line_chains_deployments_that_exist(target):
    assert target in schema("shareverse")["properties"]["target"]["enum"]
    names = {(flow_of(deployment), deployment["name"]) for deployment in DEPLOYMENTS}
    assert {("collect-dataset", target), ("train-shareverse", target)} <= names
