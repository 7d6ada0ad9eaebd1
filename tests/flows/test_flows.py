"""The flows' parameters: typed, checked by the server before anything runs, and understood by the steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from flows import ablate_shareverse, collect_dataset, evaluate_shareverse, shareverse, train_shareverse
from model.presets import CHOICES, Preset
from tasks.planning.preset import TYPES, PlanPreset
from tasks.planning.weather import WEATHERS

ROOT = Path(__file__).resolve().parents[2]
FLOWS = {
    flow.name: flow
    for flow in (
        collect_dataset.collect_dataset,
        train_shareverse.train_shareverse,
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
        ("train-shareverse", {"learning_rate": 0}),
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


def choices(flow: str, parameter: str) -> set[str]:
    """The values that the schema allows, of a plain, optional or list parameter."""
    found, open_ends = set(), [schema(flow)["properties"][parameter]]
    while open_ends:
        part = open_ends.pop()
        found |= set(part.get("enum", []))
        open_ends += part.get("anyOf", [])
        open_ends += [part["items"]] if "items" in part else []
    return found


def test_choices_are_those_of_the_presets():
    assert choices("collect-dataset", "trajectory_types") == set(TYPES)
    assert choices("collect-dataset", "weathers") == set(WEATHERS)
    for name in ("views", "camera", "cross_agent", "cross_agent_mode", "cross_rope"):
        assert choices("train-shareverse", name) == set(CHOICES[name]), name


def test_all_parameters_are_flat():
    for name in FLOWS:
        for parameter, part in schema(name)["properties"].items():
            assert part.get("type") != "object", (name, parameter)
            assert "$ref" not in part, (name, parameter)


def test_collecting_hands_its_overrides_to_the_plan(monkeypatch):
    calls: dict[str, tuple] = {}
    monkeypatch.setattr(collect_dataset, "plan_recordings", lambda *given: calls.update(plan=given))
    monkeypatch.setattr(collect_dataset, "record_clips", lambda *given, **named: calls.update(record=given) or {})
    monkeypatch.setattr(collect_dataset, "write_dataset", lambda *given: {"given": given})
    done = collect_dataset.collect_dataset.fn("mine", towns=["Mini01", "Mini02"], seed=3, servers=1)
    assert done == {"given": ("mine", 32)}
    dataset, preset, overrides, simulator = calls["plan"]
    assert (dataset, preset) == ("mine", "demo")
    changed = PlanPreset.load(preset).replace(**{k: v for k, v in overrides.items() if v is not None})
    assert (changed.towns, changed.seed) == (("Mini01", "Mini02"), 3)
    assert calls["record"] == ("mine", simulator, 1)
    assert list(calls) == ["plan", "record"]


TRAINING = {
    "seed": 1, "learning_rate": 0.5, "train_steps": 9, "batch_size": 4, "num_layers": 2, "sampling_steps": 3,
    "views": "front", "camera": "raw", "cross_agent": "within", "cross_agent_mode": "block", "cross_rope": "shared",
    "base_model": "here", "codec_path": "there", "text_embedding": "file",
}  # fmt: skip


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
    train_shareverse.train_shareverse.fn(dataset="mine", run_name="x", processes=3, **TRAINING)
    assert set(TRAINING) == set(schema("train-shareverse")["properties"]) - {
        "dataset", "preset", "run_name", "processes"
    }  # fmt: skip
    flat = Preset.load("demo").replace(**calls[0][3]).flat()
    assert {name: flat[name] for name in TRAINING} == TRAINING
    assert calls == [
        ("open_run", "mine", "demo", TRAINING, "x"),
        ("encode_clips", "mine", "abc"),
        ("train_model", "abc", "latents", 3),
        ("score_run", "mine", "abc"),
    ]


def test_what_is_not_given_stays_as_the_preset_has_it(trained):
    calls, _ = trained
    train_shareverse.train_shareverse.fn()
    assert calls[0] == ("open_run", "demo", "demo", {}, "")


def test_a_finished_run_is_not_trained_again(trained):
    calls, opened = trained
    opened["finished"] = {"metrics": {}}
    assert train_shareverse.train_shareverse.fn() is opened
    assert [name for name, *_ in calls] == ["open_run"]


@pytest.mark.parametrize("target", ["local", "paper"])
def test_the_whole_line_chains_deployments_that_exist(target):
    assert choices("shareverse", "target") >= {target}
    names = {(flow_of(deployment), deployment["name"]) for deployment in DEPLOYMENTS}
    assert {("collect-dataset", target), ("train-shareverse", target)} <= names
