"""An evaluation on disk and in MLflow: `runs/<id>/evaluation/`, and finished.json when the training is over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mlflow.exceptions import MlflowException

from infra.mlflow_tracking import TrackingError
from infra.storage import OnProgress, atomic_dir, atomic_file, no_progress, sweep_temporary
from tasks.encoding.latents import latents_key
from tasks.evaluation.breakdown import distances
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.exchange import add_without, check_without
from tasks.evaluation.films import make_films
from tasks.evaluation.metrics import GIVEN_FRAMES
from tasks.evaluation.pictures import Film, write_pictures
from tasks.evaluation.plots import plot_by_frame, plot_by_group
from tasks.evaluation.report import Report, make_report, write_tables
from tasks.evaluation.report_page import write_page
from tasks.evaluation.sampling import Sampler
from tasks.evaluation.score import Evaluation, evaluate
from tasks.sharding.reader import ClipIndex
from tasks.training.run import Run, steps_of
from tasks.training.tracking import open_log


def folder_of(run: Run, split: str) -> Path:
    return run.folder / ("evaluation" if split == "test" else f"evaluation_{split}")


def latents_dir_of(run: Run) -> Path:
    """Return the folder of the latents (and the codec) that the run was trained on."""
    return run.dataset_dir / "latents" / latents_key(run.dataset_digest, run.preset)


def write_evaluation(
    evaluation: Evaluation, report: Report, films: Sequence[Film], title: str, fps: float, folder: Path
) -> None:
    """Write tables, plots, videos and the page; the folder appears complete or not at all."""
    sweep_temporary(folder.parent)
    with atomic_dir(folder) as temporary:
        write_tables(evaluation, report, temporary)
        plots = [plot_by_frame(report, temporary), *plot_by_group(report, temporary)]
        write_pictures(films, fps, temporary)
        write_page(report, title, films, fps, temporary, plots)


def frames_per_second(run: Run, split: str) -> float:
    index = ClipIndex(run.dataset_dir)
    return float(json.loads(index.read(index.split(split)[0])["meta.json"])["fps"])


def films_of(run: Run, evaluation: Evaluation, without: Run | None) -> list[Film]:
    """Return the clips to be shown, with those of a run without exchange where one is given."""
    mine = Sampler.of_checkpoint(run.preset, evaluation.checkpoint, latents_dir_of(run))
    blind = None
    if without is not None and (checkpoint := without.latest_checkpoint()):
        blind = Sampler.of_checkpoint(without.preset, checkpoint, latents_dir_of(without))
    return make_films(evaluation, run.dataset_dir, mine, blind)


def measured(run: Run, split: str, without: Run | None, on_progress: OnProgress) -> Evaluation:
    """Score a run, and beside it one without exchange. EvaluationError."""
    if without is not None:
        check_without(run, without)
    evaluation = evaluate(run, run.dataset_dir, latents_dir_of(run), split, on_progress)
    if without is not None:
        add_without(evaluation, evaluate(without, run.dataset_dir, latents_dir_of(without), split, on_progress))
    return evaluation


def known_distances(run: Run, evaluation: Evaluation) -> dict[str, np.ndarray] | None:
    """Return the agents' distances by window, or None and put the reason among what the evaluation misses."""
    try:
        return distances(run.dataset_dir, evaluation.scores.windows.values(), run.preset.video.frames - GIVEN_FRAMES)
    except EvaluationError as reason:
        evaluation.missing["psnr_by_distance"] = str(reason)
        return None


def score(
    run: Run, split: str = "test", on_progress: OnProgress = no_progress, *, without: Run | None = None
) -> Report:
    """Score a run's last checkpoint, write and log the outcome on the training's own MLflow run; again overwrites.

    `without`: a run of the same data and size whose agents exchange nothing, to be shown and scored beside it.
    EvaluationError, CodecError or TrackingError in one sentence; then MLflow's run is marked as failed.
    """
    log = open_log(run, {})
    folder, trained, wanted = folder_of(run, split), 0, run.preset.training.train_steps
    try:
        evaluation = measured(run, split, without, on_progress)
        trained = steps_of(evaluation.checkpoint)
        apart = known_distances(run, evaluation)
        report = make_report(
            evaluation, trained_steps=trained, train_steps=wanted, mlflow_url=log.url, distance_m=apart
        )
        title = f"ShareVerse {run.name or run.run_id}, {split} split"
        films = films_of(run, evaluation, without)
        write_evaluation(evaluation, report, films, title, frames_per_second(run, split), folder)
    except BaseException:
        log.close("FAILED")
        raise
    try:
        log.final_metrics(report.metrics, step=trained)
        log.artifacts(folder, folder.name)
        log.note("\n\n".join(report.verdict), report.missing)
        log.close("FINISHED" if trained >= wanted else "KILLED")
    except MlflowException as error:
        raise TrackingError(
            f"MLflow did not take the evaluation ({error}); it is in {folder}: "
            "run evaluate-shareverse again to send it."
        ) from error
    if trained >= wanted and split == "test":
        with atomic_file(run.folder / "finished.json") as path:
            path.write_text(json.dumps({"metrics": report.metrics, "mlflow_url": log.url}, indent=1))
    return report
