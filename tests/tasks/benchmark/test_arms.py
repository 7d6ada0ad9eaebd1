"""The arms: equal but for one switch, scored on the same scenes, kept run by run, side by side in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest

from infra import mlflow_tracking
from model.presets import Preset, PresetError
from tasks.benchmark import task as benchmark_task
from tasks.benchmark.arms import EVERYTHING, LARGE, SIZES, Ablation, Arm, Setting, ablation_of
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.outcomes import LEADS, SCORING, ArmScore, marker_of, standing_of
from tasks.benchmark.summary import over_seeds, row_of, sentences, table
from tasks.benchmark.tracking import EXPERIMENT
from tasks.benchmark.training import open_arms
from tasks.planning.preset import PlanPreset
from tests.painted_world import write_painted_dataset
from tests.tasks.benchmark.untrained import stand_ins

LEAKS = {"leaking_scenes": 0, "checked_scenes": 8, "untold_scenes": 0}
TOY = Ablation("quick", (Setting("appearance", "large", 1.0),), ("cross", "within", "none"), (0,), (1, 2))


@pytest.mark.parametrize("setting", EVERYTHING, ids=lambda setting: setting.name)
def test_every_setting_has_a_plan_of_its_own(setting):
    plan = PlanPreset.load(setting.plan_preset)
    assert setting.dataset == setting.plan_preset
    assert plan == plan.replace(**setting.view_size)
    assert (plan.scenes, plan.fact_task, plan.fact_distance) == ("hidden_facts", setting.task, setting.distance)
    assert len({other.dataset for other in EVERYTHING}) == len(EVERYTHING)
    assert LARGE.dataset == "shared-world-bench"
    video = Preset.load("bench").video
    assert (plan.frames, plan.view_height, plan.view_width) == (video.frames, video.height, video.width)
    assert plan.test_recordings_per_town * len(plan.test_towns) >= 64


def test_arms_differ_in_the_switch_alone():
    presets = [arm.preset.flat() for arm in SIZES["quick"].arms_of(LARGE)]
    assert [preset.pop("cross_agent") for preset in presets] == ["on", "within", "off"]
    assert presets[0] == presets[1] == presets[2]
    assert presets[0]["raymap_centroid"] == "first"  # trap 41: future leaks
    assert {arm.preset.training.seed for arm in SIZES["full"].arms_of(LARGE)} == {0, 1, 2}


def test_steps_follow_the_model_preset():
    steps = {setting.name: setting.preset.training.train_steps for setting in EVERYTHING}
    assert steps == {"appearance large": 800, "appearance medium": 1600, "binding large": 1200,
                     "trajectory large": 1600, "appearance small": 2400}  # fmt: skip
    assert SIZES["demo"].settings[0].preset.training.train_steps == 600


def test_a_larger_model_gets_scenes_of_its_own_size():
    large, medium, *_ = ablation_of("full", "single-gpu").settings
    given, wanted = Preset.load("single-gpu"), large.preset
    assert (given.video.frames, given.transformer.raymap_centroid) == (49, "all")
    assert (wanted.video.frames, wanted.transformer.raymap_centroid) == (9, "first")  # trap 41: future leaks
    assert wanted == given.replace(frames=9, raymap_centroid="first")
    assert medium.preset.training.train_steps == 2 * given.training.train_steps
    assert (large.dataset, medium.dataset) == ("shared-world-bench-192x128", "shared-world-bench-medium-192x128")
    assert (large.name, Arm(large, "cross", 1).preset.training.seed) == ("appearance large, single-gpu", 1)
    plan = PlanPreset.load(large.plan_preset).replace(**large.view_size)
    assert (plan.view_width, plan.view_height) == (wanted.video.width, wanted.video.height)


def test_the_larger_bench_differs_in_size_alone():
    small, large = Preset.load("bench"), Preset.load("bench-96x64")
    assert large.flat() == small.replace(width=96, height=64).flat()


def test_what_there_is_not_is_refused(tmp_path):
    with pytest.raises(BenchmarkError, match="there is no size 'huge': take one of demo, quick, full"):
        ablation_of("huge")
    with pytest.raises(PresetError, match="there is no model preset 'huge'"):
        ablation_of("full", "huge")
    front = tmp_path / "front.toml"
    front.write_text('[video]\nviews = "front"\n')
    with pytest.raises(BenchmarkError, match="has views 'front': a fact may be seen by any camera, take all four"):
        ablation_of("full", str(front))


def score_of(name: str, **metrics: float) -> ArmScore:
    given = {"accuracy": 0.25, "accuracy_low": 0.2, "chance": 0.25, "follows": 0.3, "keeps": 0.2} | metrics
    return ArmScore(Arm(LARGE, name, 0), given, {})


def test_what_the_arms_show_is_said_in_words():
    lines = sentences([score_of("cross", accuracy=0.99, follows=0.98, keeps=0.0), score_of("within")])
    assert len(lines) == 1
    assert "right in 99.0% of the videos with exchange and in 25.0% without (chance 25%)" in lines[0]
    assert "98.0% follow and 0.0% keep" in lines[0]


def test_a_control_above_chance_is_called_a_leak():
    lines = sentences([score_of("cross"), score_of("within", accuracy=0.4, accuracy_low=0.3)])
    assert lines[1].startswith("ATTENTION: appearance large, within, seed 0: accuracy 0.400 is above chance")
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("arm", "name"),
    [("none", "accuracy_decided"), ("within", "accuracy_uninformative"), ("cross", "accuracy_uninformative_decided")],
)
def test_readings_that_are_left_open_do_not_hide_a_leak(arm, name):
    leaking = score_of(arm, **{name: 0.5, f"{name}_low": 0.3})
    assert [line for line in sentences([leaking]) if name in line]
    assert not sentences([score_of(arm, **{name: 0.5, f"{name}_low": 0.2})])


def test_the_table_shows_what_was_measured_and_a_dash_for_the_rest():
    first, second = score_of("cross", psnr=20.123, accuracy_high=0.3), score_of("none")
    lines = table([row_of(first), row_of(second)]).splitlines()
    assert lines[0] == "| task | distance | arm | seed | chance | accuracy | follows | keeps | dB |"
    assert lines[2] == "| appearance | large | cross | 0 | 0.25 | 0.250 [0.20, 0.30] | 0.300 | 0.200 | 20.12 |"
    assert lines[3].endswith("| – |")


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """The Prefect task as a plain function on painted scenes, models at their random start; what it did."""
    home = tmp_path / "home"
    write_painted_dataset(home / "datasets" / "shared-world-bench", train=8, test=12)
    did: dict[str, list] = {"trained": [], "said": [], "asked": []}

    monkeypatch.setenv("SHAREVERSE_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name, stand_in in (stand_ins(did) | {"ablation_of": lambda *given: did["asked"].append(given) or TOY}).items():
        monkeypatch.setattr(benchmark_task, name, stand_in)
    return lambda: benchmark_task.compare_arms.fn("quick", "bench", 0, LEAKS), did


def logged() -> dict[str, mlflow.entities.Run]:
    client = mlflow_tracking.mlflow_client()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {run.data.params["arm"]: run for run in client.search_runs([experiment.experiment_id])}


@pytest.mark.slow
def test_arms_are_scored_alike_and_nothing_is_done_twice(compare):
    run_it, did = compare
    rows = run_it()
    runs = logged()
    assert did["asked"] == [("quick", "bench")]
    assert [row["arm"] for row in rows] == list(TOY.arms)
    assert runs.keys() == set(TOY.arms)
    for row in rows:
        run = runs[row["arm"]]
        assert run.info.status == "FINISHED"
        given = {name: run.data.params[name] for name in ("task", "distance", "arm", "size", "seed")}
        assert given == {"task": "appearance", "distance": "large", "arm": row["arm"], "size": "quick", "seed": "0"}
        wanted = {"accuracy", "accuracy_low", "accuracy_high", "accuracy_2_steps", "accuracy_2_steps_low", "chance",
                  "partner_swap_accuracy", "follows", "keeps", "leaking_scenes", "scenes", "exact_change", "psnr_fact",
                  "fact_cells"}  # fmt: skip
        if row["arm"] == "cross":
            leads = {f"lead_{control}_{name}" for control in ("within", "none") for name in LEADS}
            wanted |= leads | {f"{name}_low" for name in leads}
        assert wanted <= run.data.metrics.keys()
        assert run.data.metrics["accuracy"] == pytest.approx(row["accuracy"])
        assert (run.data.metrics["leaking_scenes"], run.data.metrics["scenes"]) == (0, 12)
        # untrained projectors are zero: nobody's picture depends on the partner
        assert run.data.metrics["exact_change"] == 0.0
    files = mlflow_tracking.mlflow_client().list_artifacts(runs["cross"].info.run_id, "benchmark")
    assert {Path(file.path).name for file in files} == {"hidden_fact.png", "report.html"}
    assert any(line.startswith("cross minus none, 1 seed, paired by scene: right +0.00") for line in did["said"])
    assert [run.run_id for run, _ in standing_of(TOY)] == did["trained"]

    assert run_it() == rows
    assert did["said"][-1] == "appearance large: all 3 arms were scored before."
    marker = marker_of(open_arms(TOY.arms_of(TOY.settings[0]))[1], TOY)
    of_old = json.loads(marker.read_text()) | {"scoring": SCORING - 1, "metrics": {}}
    marker.write_text(json.dumps(of_old))
    assert len(standing_of(TOY)) == 2  # what another way of scoring gave does not count
    assert run_it() == rows
    assert json.loads(marker.read_text())["metrics"]
    marker.unlink()
    assert run_it() == rows
    assert len(did["trained"]) == len(logged()) == 3


def test_the_table_of_several_seeds_is_left_in_log_and_artifact(monkeypatch):
    said, left = [], {}
    monkeypatch.setattr(benchmark_task, "get_run_logger", lambda: SimpleNamespace(info=said.append))
    monkeypatch.setattr(
        benchmark_task, "create_markdown_artifact", lambda text, **named: left.update(text=text, **named)
    )
    rows = [row_of(score_of("cross")) | {"seed": seed} for seed in range(2)]
    benchmark_task.sum_up.fn(rows[:1])
    assert left == {"text": table(rows[:1]), "key": "shared-world-bench", "description": left["description"]}
    benchmark_task.sum_up.fn(rows)
    assert left["text"].startswith(table(rows))
    assert left["text"].endswith(table(over_seeds(rows)))
    assert "\n".join(said).endswith(left["text"])


def test_seeds_are_merged_to_their_mean_lowest_and_highest():
    rows = [row_of(score_of("cross", accuracy=value)) | {"seed": seed} for seed, value in enumerate((0.9, 1.0, 0.8))]
    merged = over_seeds([*rows, row_of(score_of("within"))])
    assert [(row["arm"], row["seed"]) for row in merged] == [("cross", "all 3"), ("within", "all 1")]
    assert (merged[0]["accuracy_low"], merged[0]["accuracy_high"]) == (0.8, 1.0)
    assert merged[0]["accuracy"] == pytest.approx(0.9)
    assert "0.900 [0.80, 1.00]" in table(merged)
