"""Prefect's view of the paper's ablations: train the arms, score them, compare. MLflow experiment `paper-ablations`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from infra.prefect_progress import FlowProgress, prefect_tags
from infra.storage import home
from tasks.benchmark.arms import ablation_of
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.paper.page import markdown, write_paper_page
from tasks.benchmark.paper.score import PaperScore, keep_paper_score, paper_score_before, score_paper_arm
from tasks.benchmark.paper.study import BASE, EXPERIMENT, PaperArm, PaperStudy, paper_study
from tasks.benchmark.paper.verdict import gains, sentences
from tasks.benchmark.task import deliver_all
from tasks.benchmark.tracking import fail_untrained, publish_arm, target_in
from tasks.benchmark.training import is_trained, train_arms
from tasks.encoding.encode import encode_run
from tasks.encoding.latents import latents_key
from tasks.evaluation.report.write import latents_dir_of
from tasks.evaluation.scoring.sampling import Sampler
from tasks.runs.mlflow_run import MlflowTarget
from tasks.runs.outbox import Parcel, post, within_home
from tasks.runs.run import Run
from tasks.training.group import OnRows
from tasks.training.tracking import TrainingLog


def is_collected(dataset: str) -> bool:
    """Tell whether a data set is finished."""
    return (home() / "datasets" / dataset / "dataset.json").exists()


def paper_target(arm: PaperArm, run: Run) -> MlflowTarget:
    """Return the MLflow run of an arm of the paper's ablations."""
    return target_in(EXPERIMENT, f"{arm.name} · seed {arm.seed}", run, {"arm": arm.name})


@task(name="compare-with-paper")
def compare_with_paper(size: str, dataset: str, preset: str, arms_at_a_time: int | None = None) -> list[dict[str, Any]]:
    """Train and score the arms of the paper's ablations on a data set, with the seeds of a size of the comparison.

    Does what no earlier run has: checkpoints and figures are kept run by run. Returns a row of figures an arm.
    ShardError without the data set, PresetError, BenchmarkError. MLflow may be down: what it misses is sent later.
    """
    study, log = paper_study(dataset, preset, ablation_of(size).seeds), get_run_logger()
    arms, runs = study.arms, study.open_runs()
    trackers = {
        run.run_id: TrainingLog(run, prefect_tags(), paper_target(arm, run))
        for arm, run in zip(arms, runs, strict=True)
    }
    deliver_all(runs, log)
    known = [paper_score_before(run, arm) for arm, run in zip(arms, runs, strict=True)]
    todo = [run for run, score in zip(runs, known, strict=True) if score is None]
    log.info(f"{dataset}: {len(runs) - len(todo)} of {len(runs)} runs were scored before.")
    try:
        train_missing(todo, lambda run: trackers[run.run_id].rows, arms_at_a_time)
    except BaseException as error:
        fail_untrained(todo, trackers, error)
        raise
    scores = score_missing(study, runs, known, trackers)
    page = write_paper_page(study, scores, size, runs[0].folder)
    publish_verdict(study, scores, runs[0], page)
    for line in sentences(study, scores):
        log.info(line)
    table = markdown(study, scores)
    create_markdown_artifact(table, key=EXPERIMENT, description="The paper's ablations: what they show at this size")
    return [{"arm": score.arm.name, "seed": score.arm.seed, "dataset": dataset, **score.metrics()} for score in scores]


def train_missing(runs: Sequence[Run], rows_of: Callable[[Run], OnRows], arms_at_a_time: int | None = None) -> None:
    """Encode what the runs need, once for all that see the same, and train those that are not trained yet."""
    by_latents: dict[str, list[Run]] = {}
    for run in runs:
        by_latents.setdefault(latents_key(run.dataset_digest, run.preset), []).append(run)
    for group in by_latents.values():
        latents, _ = encode_run(group[0], FlowProgress("encoding", "clips"))
        train_arms(group, latents, rows_of, FlowProgress("arms", "steps"), arms_at_a_time)


def score_missing(
    study: PaperStudy,
    runs: Sequence[Run],
    known: Sequence[PaperScore | None],
    trackers: Mapping[str, TrainingLog],
) -> list[PaperScore]:
    """Score and publish what is not scored yet, one run after another; return all scores in the study's order."""
    scores: list[PaperScore] = []
    bases: dict[int, PaperScore] = {}
    for arm, run, before in zip(study.arms, runs, known, strict=True):
        score = before
        if score is None:
            score = score_paper_arm(study, arm, run, paper_sampler(run), FlowProgress("scoring", "windows"))
            publish(study, score, run, trackers[run.run_id], bases.get(arm.seed))
            keep_paper_score(run, score)
        if arm.name == BASE:
            bases[arm.seed] = score
        scores.append(score)
    return scores


def paper_sampler(run: Run) -> Sampler:
    """Return a run's last checkpoint, ready to generate. BenchmarkError when it is not trained to its last step."""
    checkpoint = run.latest_checkpoint()
    if checkpoint is None or not is_trained(run):
        raise BenchmarkError(
            f"run {run.run_id} in {run.folder} is not trained to its end: run ablate-shareverse again."
        )
    return Sampler.of_checkpoint(run.preset, checkpoint, latents_dir_of(run))


def publish(study: PaperStudy, score: PaperScore, run: Run, training: TrainingLog, base: PaperScore | None) -> None:
    """Send an arm's figures, and the base's lead over it, to its MLflow run; in the outbox while that is down."""
    figures = score.metrics() if base is None else score.metrics() | gains(study, score, base)
    note = f"the comparison is among the artifacts of the run `{study.arms[0]}`."
    unsent = publish_arm(paper_target(score.arm, run), str(score.arm), run, training, figures, note, {})
    if unsent:
        get_run_logger().warning(unsent)


def publish_verdict(study: PaperStudy, scores: Sequence[PaperScore], run: Run, page: Path) -> None:
    """Send the page and the sentences to the first base's MLflow run; in its outbox while MLflow is down."""
    note = "\n\n".join([f"{page.name}:", *sentences(study, scores)])
    parcel = Parcel("comparison", artifacts={within_home(page): "comparison"}, note=note, status="FINISHED")
    if unsent := post(run, parcel, prefect_tags(), paper_target(study.arms[0], run)):
        get_run_logger().warning(unsent)
