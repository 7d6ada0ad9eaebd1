"""The proof in small: a model with exchange learns to pass a hidden fact on, one of equal capacity without does not.

Slow: it paints 512 scenes and trains both arms through the product's own code.
"""

from __future__ import annotations

import pytest

from model.presets import Preset
from tasks.benchmark.detector import calibrated
from tasks.benchmark.entries import Ours
from tasks.benchmark.outcomes import sampler_of
from tasks.benchmark.picture import explaining_picture
from tasks.benchmark.scenes import read_scenes
from tasks.benchmark.score import Outcome, outcome_difference, score_entry
from tasks.runs.run import create_run
from tasks.training.group import train
from tests.local_encoding import encode_here
from tests.painted_world import write_painted_dataset

SMALLEST = Preset.load("bench").replace(train_steps=600, checkpoint_every=600)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, Outcome]:
    """Return what each arm, trained alike, knows of 64 scenes and their twins."""
    home = tmp_path_factory.mktemp("learning")
    dataset = write_painted_dataset(home / "datasets" / "painted", train=512, test=64)
    latents = encode_here(dataset, SMALLEST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAREVERSE_HOME", str(home))
        arms = "on", "within"
        runs = [create_run(dataset.name, SMALLEST.replace(cross_agent=arm)) for arm in arms]
        for run in runs:
            train(run, latents)
        samplers = {arm: sampler_of(run, latents) for arm, run in zip(arms, runs, strict=True)}
    scenes = read_scenes(dataset, SMALLEST)
    detector = calibrated(scenes, samplers["on"].round_trip)
    return {arm: score_entry(Ours(sampler, 1, arm), scenes, detector) for arm, sampler in samplers.items()}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_only_the_partner_saw_is_painted_right(outcomes):
    metrics = outcomes["on"].metrics()
    assert metrics["accuracy"] >= 0.9
    assert metrics["follows"] >= 0.9
    assert metrics["keeps"] <= 0.1
    assert metrics["partner_swap_accuracy"] <= 0.45
    assert metrics["exact_change"] > 0.1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_without_exchange_it_is_not(outcomes):
    metrics = outcomes["within"].metrics()
    assert metrics["accuracy"] <= 0.45
    assert metrics["exact_change"] == 0.0
    assert outcome_difference("accuracy", [outcomes["on"]], [outcomes["within"]]).low > 0.3


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_picture_shows_both(outcomes, tmp_path):
    on, within = outcomes["on"], outcomes["within"]
    path = tmp_path / "hidden_fact.png"
    explaining_picture(on.scenes, on, within).save(path)
    assert path.stat().st_size > 20_000
