"""What is said of the paper's ablations, on figures whose answer is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from model.presets import Preset, PresetError
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.paper.page import PAGE_FILE, markdown, write_paper_page
from tasks.benchmark.paper.score import PaperScore
from tasks.benchmark.paper.study import COMPARISONS, SWITCHES, PaperStudy, paper_study, studies_of
from tasks.benchmark.paper.verdict import Difference, by_arm, figure_difference, gains, sentence, sentences
from tasks.evaluation.measures.statistics import Interval

STUDY = PaperStudy("demo", Preset.load("small"), (0, 1, 2))
WINDOWS = {f"scene{scene}+{start:02d}": f"scene{scene}" for scene in range(8) for start in (0, 16, 32)}
BY_ARM = {comparison.other: comparison for comparison in COMPARISONS}


def scores_of(lead: Callable[[str, int], float], study: PaperStudy = STUDY, noise: float = 0.05) -> list[PaperScore]:
    """Scores in which the base leads an arm by so many dB, with scene noise that base and arm do not share."""
    scores = []
    for number, arm in enumerate(study.arms):
        rng = np.random.default_rng(number)
        level = 20.0 - (0 if arm.name == "base" else lead(arm.name, arm.seed))
        figures: dict[str, dict[str, float]] = {}
        for front in ("front_",) if arm.name == "front" else ("", "front_"):
            for row in ("", "_20_steps", "_copy", "_codec"):
                drop = {"": 0.0, "_20_steps": 1.0, "_copy": 3.0, "_codec": -6.0}[row]
                by_scene = {scene: rng.normal(level - drop, noise) for scene in set(WINDOWS.values())}
                figures[f"{front}psnr{row}"] = {window: by_scene[scene] for window, scene in WINDOWS.items()}
                figures[f"{front}ssim{row}"] = {
                    window: value / 40 for window, value in figures[f"{front}psnr{row}"].items()
                }
        scores.append(PaperScore(arm, WINDOWS, figures))
    return scores


def said(arm: str, lead: Callable[[str, int], float], **options) -> str:
    study = options.get("study", STUDY)
    return sentence(BY_ARM[arm], study, by_arm(scores_of(lead, **options)))


@pytest.mark.parametrize("arm", list(BY_ARM))
def test_a_clear_lead_supports_the_paper(arm):
    line = said(arm, lambda *_: 0.5)
    assert "The base is better, which supports the paper." in line
    assert "PROVES NOTHING" not in line
    assert "CONTRADICTS" not in line
    assert line.count("seed ") == 3
    assert "at 20 steps +0." in line


def test_the_front_view_is_compared_at_the_smaller_size():
    assert STUDY.front_size == (32, 48)
    assert "on front views at 48x32" in said("front", lambda *_: 0.5)
    assert "on all views" in said("raw", lambda *_: 0.5)


@pytest.mark.parametrize("arm", list(BY_ARM))
def test_a_clear_lead_of_the_other_arm_contradicts_the_paper_and_is_told(arm):
    line = said(arm, lambda *_: -0.5)
    assert f"CONTRADICTS the paper: arm '{arm}' is better than the base." in line
    assert "PROVES NOTHING" not in line


def test_an_interval_that_holds_0_proves_nothing():
    line = said("raw", lambda *_: 0.02, noise=1.0)
    assert "PROVES NOTHING at this size: the interval holds 0" in line


@pytest.mark.parametrize("ends", [(0.0, 0.2), (-0.2, 0.0)])
def test_an_interval_that_ends_at_0_holds_it(ends):
    interval = Interval(sum(ends) / 2, *ends, 8)
    difference = Difference(BY_ARM["raw"], "psnr", {0: interval, 1: interval}, interval)
    assert difference.reasons == ["the interval holds 0"]


def test_seeds_that_disagree_prove_nothing_though_the_interval_is_clear_of_0():
    def lead(_: str, seed: int) -> float:
        return -0.3 if seed == 2 else 0.6

    scores = by_arm(scores_of(lead))
    found = figure_difference(BY_ARM["raw"], "psnr", scores, STUDY.seeds)
    assert found.together.low > 0
    assert found.together.mean == pytest.approx(0.3, abs=0.06)
    assert [round(found.by_seed[seed].mean, 1) for seed in STUDY.seeds] == pytest.approx([0.6, 0.6, -0.3], abs=0.11)
    assert found.reasons == ["the seeds disagree in sign"]
    assert "PROVES NOTHING at this size: the seeds disagree in sign." in said("raw", lead)


def test_a_gain_that_the_control_of_equal_capacity_has_too_is_not_owed_to_exchange():
    line = said("off", lambda arm, _: {"off": 0.5}.get(arm, 0.0))
    assert "PROVES NOTHING at this size: the control of equal capacity is as good (base minus within: " in line
    assert "supports" not in line
    assert "control" not in said("off", lambda *_: 0.5)
    assert "CONTRADICTS" in said("off", lambda arm, _: {"off": -0.5}.get(arm, 0.0))


def test_a_control_that_is_better_than_the_base_does_not_let_the_gain_stand():
    assert "the control of equal capacity is as good" in said("off", lambda arm, _: {"off": 0.5}.get(arm, -0.5))


@pytest.mark.parametrize(("better", "said_so"), [(5.0, True), (0.1, False), (-5.0, False)])
def test_a_difference_that_the_codecs_alone_may_make_proves_nothing(better, said_so):
    """Codec errors of 26 and 31 dB lie 0.0017 apart, those of arms at 20 and 20.5 dB 0.0011."""
    scores = scores_of(lambda *_: -0.5)
    for score in scores:
        if score.arm.name == "front":
            codec = score.figures["front_psnr_codec"]
            codec.update({window: value - 0.5 + better for window, value in codec.items()})
    line = sentence(BY_ARM["front"], STUDY, by_arm(scores))
    assert ("PROVES NOTHING at this size: the codecs' own errors differ by more than the arms'" in line) is said_so
    assert ("CONTRADICTS" in line) is not said_so


def test_where_decibels_and_squared_errors_disagree_codecs_that_differ_leave_it_open():
    """The front arm is better by 1 dB but for one scene, in which it is far worse."""
    scores = scores_of(lambda *_: -1.0, noise=0.01)
    for score in scores:
        if score.arm.name == "front":
            figures = score.figures["front_psnr"]
            figures.update({window: 14.0 for window, scene in WINDOWS.items() if scene == "scene0"})
            codec = score.figures["front_psnr_codec"]
            codec.update({window: value + 5 for window, value in codec.items()})
    line = sentence(BY_ARM["front"], STUDY, by_arm(scores))
    assert "decibels and squared errors disagree" in line
    assert "CONTRADICTS" not in line


def test_one_seed_is_no_evidence_and_a_leaning_against_the_paper_is_told():
    study = dataclasses.replace(STUDY, seeds=(0,))
    line = said("raw", lambda *_: -0.5, study=study)
    assert "PROVES NOTHING at this size: one seed is no evidence" in line
    assert line.endswith("It leans AGAINST the paper.")


def test_arms_that_learned_nothing_are_named():
    scores = scores_of(lambda *_: 0.5)
    assert len(sentences(STUDY, scores)) == len(COMPARISONS)
    scores[0].figures["front_psnr"].update(dict.fromkeys(WINDOWS, 1.0))
    assert "standing still: base, seed 0." in sentences(STUDY, scores)[-1]


def test_the_lead_is_logged_with_the_ends_of_its_interval_and_paired_by_scene():
    scores = by_arm(scores_of(lambda *_: 0.5))
    base, other = scores["base", 1], scores["raw", 1]
    shared = np.random.default_rng(9).normal(0, 5, len(WINDOWS))  # what makes a window hard is hard for both
    for score in (base, other):
        for window, shift in zip(WINDOWS, shared, strict=True):
            score.figures["psnr"][window] += shift
    found = gains(STUDY, other, base)
    assert found["base_lead_psnr"] == pytest.approx(0.5, abs=0.06)
    assert 0.3 < found["base_lead_psnr_low"] < found["base_lead_psnr"] < found["base_lead_psnr_high"] < 0.7
    assert {"base_lead_ssim", "base_lead_psnr_20_steps"} <= found.keys()
    assert "base_lead_front_psnr" in gains(STUDY, scores["front", 1], base)


def test_scores_of_other_windows_are_not_compared():
    scores = by_arm(scores_of(lambda *_: 0.5))
    scores["raw", 0].figures["psnr"].pop(next(iter(WINDOWS)))
    with pytest.raises(BenchmarkError, match=r"raw, seed 0 were scored on other windows \(24 and 23\)"):
        figure_difference(BY_ARM["raw"], "psnr", scores, (0,))


def test_one_scene_gives_no_interval():
    score = PaperScore(STUDY.arms[0], {"a+00": "a", "a+16": "a"}, {"psnr": {"a+00": 20.0, "a+16": 21.0}})
    with pytest.raises(BenchmarkError, match="needs two of them, and there is 1; record more"):
        score.metrics()


def test_arms_differ_from_the_base_in_one_switch_each():
    first = STUDY.arms[: len(SWITCHES)]
    flat = {arm.name: arm.preset.flat() for arm in first}
    apart = {name: {key for key in values if values[key] != flat["base"][key]} for name, values in flat.items()}
    assert apart == {"base": set(), "front": {"views"}, "raw": {"camera"}, "within": {"cross_agent"},
                     "off": {"cross_agent"}}  # fmt: skip
    assert [arm.seed for arm in STUDY.arms] == [0] * 5 + [1] * 5 + [2] * 5
    with pytest.raises(PresetError, match="no model preset 'nothing'"):
        paper_study("demo", "nothing", (0,))


@pytest.mark.parametrize(
    ("size", "study", "runs"),
    [
        ("demo", None, ("sharing",)),
        ("quick", None, ("sharing",)),
        ("full", None, ("sharing", "paper")),
        ("full", "sharing", ("sharing",)),
        ("quick", "paper", ("paper",)),
        ("quick", "all", ("sharing", "paper")),
    ],
)
def test_full_runs_both_studies_unless_told_otherwise(size, study, runs):
    assert studies_of(size, study) == runs


def test_the_page_and_the_table_show_every_arm_and_every_sentence(tmp_path):
    scores = scores_of(lambda *_: 0.5)
    page = write_paper_page(STUDY, scores, "full", tmp_path).read_text()
    text = markdown(STUDY, scores)
    assert (tmp_path / f"full-{PAGE_FILE}").exists()
    for line in sentences(STUDY, scores):
        assert line in text
        assert line.split(":")[0] in page
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:7]] == list(SWITCHES)
    assert "| front | –" in text
