"""Prefect's view of the benchmark: check for leaks, train the arms, score them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from infra.prefect_progress import FlowProgress, prefect_tags
from infra.storage import home
from tasks.benchmark.arms import Ablation, ablation_of
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.leak_check import LeakCheck, check_leaks
from tasks.benchmark.outcomes import ArmScore, Jury, keep, report_folder, score_arms, scored_before
from tasks.benchmark.page import write_page
from tasks.benchmark.summary import over_seeds, row_of, sentences, table
from tasks.benchmark.tracking import arm_target, fail_untrained, publish_arm
from tasks.benchmark.training import is_trained, open_arms, train_arms
from tasks.encoding.encode import encode_run
from tasks.runs.outbox import deliver
from tasks.runs.run import Run
from tasks.training.tracking import TrainingLog


@task(name="check-hidden-facts")
def check_hidden_facts(dataset: str, exact: bool) -> dict[str, Any]:
    """Compare what the observer is given in every scene and its twin; return the outcome's figures.

    `exact` on a simulator that repeats itself. BenchmarkError when a fact is not hidden: a score on such scenes would
    mean nothing.
    """
    found: LeakCheck = check_leaks(home() / "datasets" / dataset, FlowProgress("leak-check", "scenes"), exact=exact)
    get_run_logger().info(f"{dataset}: {found}")
    if found.leaking:
        scene, reason = next(iter(found.leaking.items()))
        raise BenchmarkError(
            f"{len(found.leaking)} of {found.scenes} scenes of {dataset} give their fact away, the first is {scene} "
            f"({reason}): nothing that is scored on them would count."
        )
    return found.figures()


@task(name="compare-arms")
def compare_arms(
    size: str, model: str, setting_number: int, leaks: dict[str, Any], arms_at_a_time: int | None = None
) -> list[dict[str, Any]]:
    """Train and score a setting's arms, those that an earlier run has not; return a row of figures an arm.

    `model` is their preset; `arms_at_a_time` train side by side, None: as many as suit the machine.

    Safe to end and run again: each arm goes on from its checkpoint; a setting's arms are scored together, for its page.
    BenchmarkError, before anything is trained, when no detector can read the setting's scenes.
    """
    ablation = ablation_of(size, model)
    setting = ablation.settings[setting_number]
    arms = ablation.arms_of(setting)
    runs, log = open_arms(arms), get_run_logger()
    deliver_all(runs, log)
    known = [scored_before(run, ablation, arm) for arm, run in zip(arms, runs, strict=True)]
    if all(known):
        log.info(f"{setting.name}: all {len(arms)} arms were scored before.")
        return [row_of(score) for score in known if score]
    latents, _ = encode_run(runs[0], FlowProgress("encoding", "clips"))
    jury = Jury.of(home() / "datasets" / setting.dataset, runs[0].preset, latents)
    log.info(f"{setting.name}: {jury.detector.calibration}.")
    logs = {
        run.run_id: TrainingLog(run, prefect_tags(), arm_target(ablation, arm, run))
        for arm, run in zip(arms, runs, strict=True)
    }
    before = sum(map(is_trained, runs))
    if before:
        log.info(f"{setting.name}: {before} of {len(arms)} arms were trained before.")
    try:
        train_arms(runs, latents, lambda run: logs[run.run_id].rows, FlowProgress("arms", "steps"), arms_at_a_time)
    except BaseException as error:
        fail_untrained(runs, logs, error)
        raise
    scores = score_arms(ablation, arms, runs, latents, jury, FlowProgress("scoring", "arms"))
    folder = report_folder(runs[0], ablation.size)
    page = write_page(ablation, setting, scores, jury, folder)
    kept = [
        publish(ablation, score, run, logs[run.run_id], leaks, page) for score, run in zip(scores, runs, strict=True)
    ]
    for line in sentences(scores):
        log.info(line)
    return [row_of(score) for score in kept]


def publish(
    ablation: Ablation, score: ArmScore, run: Run, training: TrainingLog, leaks: dict[str, Any], page: Path
) -> ArmScore:
    """Write an arm's figures down, and send them with its pictures to its MLflow run; return what was written.

    While MLflow is down they wait in the run's outbox.
    """
    figures = score.metrics | {name: float(value) for name, value in leaks.items()}
    kept = ArmScore(score.arm, figures, score.missing)
    unsent = publish_arm(
        arm_target(ablation, score.arm, run), str(score.arm), run, training, figures,
        "see the report among the artifacts of the cross run.", score.missing,
        page.parent if score.arm.name == "cross" else None,
    )  # fmt: skip
    keep(run, ablation, kept)
    if unsent:
        get_run_logger().warning(unsent)
    return kept


def deliver_all(runs: Sequence[Run], log: Any) -> None:
    """Send what MLflow has not got of some runs, until the first that it does not take."""
    for run in runs:
        if unsent := deliver(run, prefect_tags()):
            log.warning(unsent)
            return


@task(name="sum-up")
def sum_up(rows: list[dict[str, Any]]) -> None:
    """Leave the table, and with several seeds their means, on the flow run's page and in its log."""
    told = table(rows)
    if len({row["seed"] for row in rows}) > 1:
        told += "\n\nMeans over the seeds [lowest, highest]:\n\n" + table(over_seeds(rows))
    for line in told.splitlines():
        get_run_logger().info(line)
    question = "Does what one agent knows reach the other?"
    create_markdown_artifact(told, key="shared-world-bench", description=question)
