"""`shareverse`: every command explains itself, passes on what it is given, and refuses in one sentence."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from flows import cli, run_log
from tests.synthetic_dataset import write_dataset

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "up", "down", "status", "demo", "collect", "train", "evaluate", "generate", "export", "export-base", "play",
    "convert", "verify", "preflight", "preview", "replay",
)  # fmt: skip
FLOWS = {"collect": "collect-dataset", "train": "train-shareverse", "evaluate": "evaluate-shareverse"}


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments), prog_name="shareverse")


def test_the_commands_are_these():
    listed = invoke("--help").stdout.split("Commands:")[1].splitlines()
    assert {line.split()[0] for line in listed if line.strip()} == set(COMMANDS)
    assert not [line for line in listed if line.endswith("...")]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example_of_options_that_there_are(command):
    shown = invoke(command, "--help")
    assert shown.exit_code == 0
    text, example = shown.stdout.split("Example:\n")
    assert text.startswith(f"Usage: shareverse {command}")
    words = shlex.split(example)
    assert words[:2] == ["shareverse", command]
    options = [word for word in words if word.startswith("--")]
    assert not [option for option in options if f"{option} " not in text]


def test_the_readmes_commands_are_there():
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    named = [words for words in lines if words[:1] == ["shareverse"]]
    assert named
    for _, command, *words in named:
        shown = invoke(command, "--help").stdout
        assert not [word for word in words if word.startswith("--") and f"{word} " not in shown]


def test_help_waits_for_nothing_heavy():
    heavy = {"torch", "prefect", "ray", "mlflow", "numpy", "pandas"}
    code = f"import sys, flows.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def started(monkeypatch):
    """Let runs be started on a server that the environment names; return a list of what was asked."""
    asked, run = [], uuid4()

    def start(deployment, parameters):
        asked.append((deployment, parameters))
        return run

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setattr(run_log, "start_run", start)
    monkeypatch.setattr(run_log, "watch_run", lambda deployment, run_id: asked.append(("watched", run_id == run)))
    return asked


def test_options_become_the_flows_parameters(started):
    values = ("--override", "repeats=3", "--override", 'gates={"min_luminance": 2}', "--param", "simulator=carla")
    assert invoke("collect", "--dataset", "mine", "--preset", "tiny", *values).exit_code == 0
    assert started == [
        (
            "collect-dataset/local",
            {
                "dataset": "mine",
                "plan_preset": "tiny",
                "overrides": {"repeats": 3, "gates": {"min_luminance": 2}},
                "simulator": "carla",
            },
        ),
        ("watched", True),
    ]


def test_what_is_not_given_is_left_to_the_deployment(started):
    assert invoke("train", "--target", "paper", "--no-watch").exit_code == 0
    assert invoke("evaluate", "--run", "1a2b3c4d5e6f", "--param", "split=val", "--no-watch").exit_code == 0
    assert started == [
        ("train-shareverse/paper", {}),
        ("evaluate-shareverse/local", {"run_id": "1a2b3c4d5e6f", "split": "val"}),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("true", True), ('["a"]', ["a"]), ("cross", "cross"), ("", ""), ("a=b", "a=b"),
     ("NaN", "NaN"), ("-Infinity", "-Infinity"), ("1e999", "1e999"), ("[" * 100_000, "[" * 100_000)],
)  # fmt: skip
def test_values_are_json_or_text(text, value):
    assert cli.parse_assignments([f"key={text}"], "--param") == {"key": value}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--param", "seed"), "'seed' is not KEY=VALUE"),
        (("--param", "=1"), "'=1' is not KEY=VALUE"),
        (("--override", "ema_decay=1", "--override", "ema_decay=2"), "'ema_decay' is given twice"),
        (("--dataset", "a", "--param", "dataset=b"), "'dataset' is given by an option of its own"),
        (("--override", "a=1", "--param", "overrides={}"), "'overrides' is given by an option of its own"),
        (("--target", "moon"), "'moon' is not one of 'local', 'paper'"),
    ],
)
def test_what_makes_no_sense_starts_nothing(started, options, sentence):
    done = invoke("train", *options)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert not started


@pytest.mark.parametrize("command", FLOWS)
def test_without_services_the_way_to_start_them_is_named(command, tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    done = invoke(command)
    assert done.exit_code == 1
    assert done.stderr == "prefect does not run: start the services with `make up`.\n"
    assert not (tmp_path / "home").exists()


def test_a_run_that_fails_is_the_commands_failure(started, monkeypatch):
    def fails(deployment, run_id):
        raise run_log.RunFailed(f"{deployment} ended as Failed:\n why")

    monkeypatch.setattr(run_log, "watch_run", fails)
    done = invoke("train")
    assert (done.exit_code, done.stderr) == (1, "train-shareverse/local ended as Failed: why\n")


def test_who_stops_watching_is_told_that_the_run_goes_on(started, monkeypatch):
    def interrupted(deployment, run_id):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_log, "watch_run", interrupted)
    done = invoke("train")
    assert done.exit_code == 1
    assert done.stderr.startswith("train-shareverse/local goes on: ")


def test_clips_of_a_run_are_generated_by_the_module_that_does_it(monkeypatch):
    asked = []
    monkeypatch.setattr("tasks.evaluation.__main__.main", lambda arguments: asked.extend(arguments) or 3)
    assert invoke("generate", "--clip", "-odd", "--out", "videos", "--seed", "7").exit_code == 3
    assert asked == ["generate", "--run=", "--clip=-odd", "--out=videos", "--steps=0", "--windows=1", "--seed=7"]
    asked.clear()
    own = ["--pictures", "a0.png", "a1.png", "--trajectories", "t.json", "--model", "m", "--out", "videos"]
    assert invoke("generate", *own).exit_code == 3
    assert asked[-3:] == ["--pictures", "a0.png", "a1.png"]
    assert {"--trajectories=t.json", "--model=m"} < set(asked)


def test_a_data_set_is_verified_by_its_name_or_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    folder = tmp_path / "datasets" / "toy"
    write_dataset(folder, train=1, val=1, test=1, frames=9)
    for given in ("toy", str(folder)):
        done = invoke("verify", given)
        assert (done.exit_code, done.stdout) == (0, "3 clip pairs are whole.\n")
    done = invoke("verify", "nothing")
    assert done.exit_code == 1
    assert "datasets/nothing is no finished data set" in done.stderr


def test_status_of_a_data_set_is_its_progress_and_without_one_the_services(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "toy").symlink_to(tiny.folder)
    shown = invoke("status", "toy")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("2 of 2 recordings are done (100.0 %), 4 clip pairs.\nThis run: 2 recordings in ")
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert [line[:1] for line in lines if line[:1] in (["Mini01"], ["Mini02"])] == [["Mini01"], ["Mini02"]]
    assert any(line[1:3] == ["server0", "ready"] for line in lines)
    refused = invoke("status", "nothing")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "has no plan: name a data set that was planned" in refused.stderr
    asked = []
    monkeypatch.setattr("infra.stack.__main__.perform", lambda action: asked.append(action) or 0)
    assert invoke("status").exit_code == 0
    assert asked == ["status"]


def test_a_plan_is_previewed_and_a_recording_replayed_by_the_modules_that_do_it(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("tasks.planning.preview.main", lambda words: asked.extend(words) or 3)
    assert invoke("preview", "demo", "--maps", "m", "--override", "repeats=3", "--pictures", "p").exit_code == 3
    assert asked == ["--override=repeats=3", "--pictures=p", "--", "demo", "m"]
    refused = invoke("replay", str(tmp_path), "r0", "--out", str(tmp_path / "out"))
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "plan.parquet" in refused.stderr


def test_clips_of_other_origin_are_converted_by_the_module_that_does_it(tmp_path, capfd):
    done = invoke("convert", str(tmp_path / "nowhere"), str(tmp_path / "out"))
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "nowhere") in done.stderr


def test_a_demo_whose_services_do_not_start_ends_there(monkeypatch):
    called = []
    monkeypatch.setattr(
        subprocess, "run", lambda words, **options: called.append(words) or subprocess.CompletedProcess(words, 1)
    )
    assert invoke("demo").exit_code == 1
    assert [words[1:] for words in called] == [["-m", "infra.stack", "up"]]


def test_preflight_prints_the_sums_and_refuses_what_cannot_fit(monkeypatch):
    from tasks.training import fit

    shown = invoke("preflight", "tiny", "--host-memory-gb", "16", "--pairs-per-s", "2")
    assert shown.exit_code == 0
    for part in ("weights", "optimiser", "activations kept", "2 processes", "3 checkpoints", "of 16.0: fits"):
        assert part in shown.stdout
    assert "time: 6 seconds for 12 pairs at 2 pairs/s (as measured)." in shown.stdout
    monkeypatch.setattr(fit, "presets_that_fit", lambda *asked: ["smaller", "smallest"])
    refused = invoke("preflight", "tiny", "--gpus", "1", "--gpu-memory-gb", "0.5")
    assert refused.exit_code == 1
    assert "DOES NOT FIT" in refused.stdout
    assert "needs at least 0.7 GB of GPU memory and a card has 0.5 GB" in refused.stderr
    assert refused.stderr.endswith("Presets that fit: smaller, smallest.\n")
    assert "model preset" in invoke("preflight", "nothing").stderr
