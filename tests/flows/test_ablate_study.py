"""Which parts of `ablate-shareverse` run, and in which order."""

from __future__ import annotations

import pytest

from flows import ablate_shareverse
from model.presets import PresetError
from tasks.benchmark.arms import ablation_of
from tasks.benchmark.errors import BenchmarkError


@pytest.fixture
def steps(monkeypatch):
    """The flow with its steps written down instead of run; the ordinary data set is not there unless said so."""
    calls: list[tuple] = []
    there: set[str] = set()

    def step(name, answer=None):
        return lambda *given, **named: calls.append((name, *given)) or answer

    for name, answer in (
        ("collect", None), ("check_hidden_facts", {}), ("compare_arms", [{"arm": "cross"}]), ("sum_up", None),
        ("compare_with_paper", [{"arm": "base"}]),
    ):  # fmt: skip
        monkeypatch.setattr(ablate_shareverse, name, step(name, answer))
    monkeypatch.setattr(ablate_shareverse, "is_collected", there.__contains__)
    return calls, there


def test_full_ends_with_the_papers_ablations_whose_data_is_recorded_first(steps):
    calls, _ = steps
    rows = ablate_shareverse.ablate_shareverse.fn(size="full")
    assert calls[0][:4] == ("collect", "demo", "demo", {})
    assert calls[-2:] == [("sum_up", rows[:-1]), ("compare_with_paper", "full", "demo", "small", None)]
    assert rows == [{"arm": "cross"}] * len(ablation_of("full").settings) + [{"arm": "base"}]


def test_the_papers_ablations_alone_on_a_data_set_that_is_there(steps):
    calls, there = steps
    there.add("mine")
    rows = ablate_shareverse.ablate_shareverse.fn(
        study="paper", paper_dataset="mine", paper_preset="tiny", arms_at_a_time=5
    )
    assert calls == [("compare_with_paper", "quick", "mine", "tiny", 5)]
    assert rows == [{"arm": "base"}]


@pytest.mark.parametrize("given", [{}, {"size": "demo"}, {"size": "full", "study": "sharing"}])
def test_what_must_be_quick_leaves_them_out(steps, given):
    calls, _ = steps
    ablate_shareverse.ablate_shareverse.fn(**given)
    names = {name for name, *_ in calls}
    assert names == {"collect", "check_hidden_facts", "compare_arms", "sum_up"}
    assert not any(call[1] == "demo" for call in calls if call[0] == "collect")


@pytest.mark.parametrize(("simulator", "wanted"), [("embedded", None), ("carla", ["train", "val", "test"])])
def test_where_recordings_differ_all_scenes_have_instance_ids(steps, simulator, wanted):
    calls, _ = steps
    ablate_shareverse.ablate_shareverse.fn(simulator=simulator)
    overrides = next(call[3] for call in calls if call[0] == "collect")
    assert overrides.get("ground_truth_splits") == wanted


def test_a_larger_model_has_its_scenes_recorded_at_its_size(steps):
    calls, _ = steps
    ablate_shareverse.ablate_shareverse.fn(bench_preset="single-gpu", arms_at_a_time=3)
    _, dataset, plan_preset, overrides, *_ = calls[0]
    assert (dataset, plan_preset) == ("shared-world-bench-192x128", "shared-world-bench")
    assert (overrides["view_width"], overrides["view_height"]) == (192, 128)
    assert calls[-2] == ("compare_arms", "quick", "single-gpu", 0, {}, 3)


def test_an_unknown_preset_is_told_of_before_anything_is_recorded(steps):
    calls, _ = steps
    with pytest.raises(PresetError, match="there is no model preset 'huge'"):
        ablate_shareverse.ablate_shareverse.fn(size="full", bench_preset="huge")
    assert calls == []


def test_a_setting_that_is_refused_does_not_stop_the_others(steps, monkeypatch):
    calls, _ = steps

    def check(dataset, exact):
        if dataset == "shared-world-bench-medium":
            raise BenchmarkError("two scenes leak.")

    monkeypatch.setattr(ablate_shareverse, "check_hidden_facts", check)
    with pytest.raises(BenchmarkError, match=r"^appearance medium: two scenes leak\.$"):
        ablate_shareverse.ablate_shareverse.fn(size="full")
    settings = len(ablation_of("full").settings)
    assert [call[3] for call in calls if call[0] == "compare_arms"] == [n for n in range(settings) if n != 1]
    assert [call[0] for call in calls[-2:]] == ["sum_up", "compare_with_paper"]
