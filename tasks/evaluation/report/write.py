"""An evaluation on disk and in MLflow: `runs/<id>/evaluation/`, and finished.json when the training is over."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from infra.storage import OnProgress, atomic_dir, atomic_file, make_folder, no_progress, sweep_temporary
from tasks.encoding.latents import latents_key
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.metrics import GIVEN_FRAMES
from tasks.evaluation.report.films import make_films
from tasks.evaluation.report.pictures import Film, write_pictures
from tasks.evaluation.report.plots import plot_by_frame, plot_by_group, plot_drift
from tasks.evaluation.report.report import Report, make_report, write_tables
from tasks.evaluation.report.report_page import write_page
from tasks.evaluation.scoring.breakdown import distances
from tasks.evaluation.scoring.exchange import add_without, check_without
from tasks.evaluation.scoring.sampling import Sampler
from tasks.evaluation.scoring.score import Evaluation, evaluate
from tasks.runs.mlflow_run import UNREACHABLE, open_log
from tasks.runs.outbox import FINISHED, Parcel, mark_failed, post, within_home
from tasks.runs.run import Run, steps_of
from tasks.sharding.reader import ClipIndex

OnUnsent = Callable[[str], None]
"""Called with a sentence when MLflow did not take something."""


def tell_nobody(sentence: str) -> None:
    """Pass over what MLflow did not take: it waits in the run's outbox."""


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
        plots = [plot_by_frame(report, temporary), *plot_drift(report, temporary), *plot_by_group(report, temporary)]
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


def url_of(run: Run) -> str:
    """Return the address of a training's MLflow run, which is running from now on; "" while MLflow is down."""
    try:
        return open_log(run, {}).url
    except UNREACHABLE:
        return ""


def score_checkpoint(
    run: Run,
    split: str = "test",
    on_progress: OnProgress = no_progress,
    *,
    without: Run | None = None,
    on_unsent: OnUnsent = tell_nobody,
) -> Report:
    """Score a run's last checkpoint, write the outcome and log it on the training's own MLflow run; again overwrites.

    `without`: a run of the same data and size whose agents exchange nothing, to be shown and scored beside it. MLflow
    may be down: then `on_unsent` is told, and the next flow that works on the run sends the outcome. EvaluationError,
    RunError or CodecError in one sentence; then MLflow's run is marked as failed.
    """
    make_folder(run.folder, EvaluationError)
    url = url_of(run)
    try:
        report = measure_and_write(run, split, on_progress, without, url)
    except BaseException as error:
        if reason := mark_failed(run, {}, error):
            on_unsent(reason)
        raise
    folder = folder_of(run, split)
    trained, wanted = steps_of(Path(report.checkpoint)), run.preset.training.train_steps
    parcel = Parcel(
        folder.name, step=trained, metrics=report.metrics, artifacts={within_home(folder): folder.name},
        note="\n\n".join(report.verdict), missing=report.missing,
        status="FINISHED" if trained >= wanted else "KILLED",
    )  # fmt: skip
    if trained >= wanted and split == "test":
        with atomic_file(run.folder / FINISHED) as path:
            path.write_text(json.dumps({"metrics": report.metrics, "mlflow_url": url}, indent=1))
    if reason := post(run, parcel, {}):
        on_unsent(reason)
    return report


def measure_and_write(run: Run, split: str, on_progress: OnProgress, without: Run | None, url: str) -> Report:
    """Measure, and write the evaluation's folder."""
    evaluation = measured(run, split, without, on_progress)
    report = make_report(
        evaluation,
        trained_steps=steps_of(evaluation.checkpoint),
        train_steps=run.preset.training.train_steps,
        mlflow_url=url,
        distance_m=known_distances(run, evaluation),
    )
    title = f"ShareVerse {run.name or run.run_id}, {split} split"
    films = films_of(run, evaluation, without)
    write_evaluation(evaluation, report, films, title, frames_per_second(run, split), folder_of(run, split))
    return report
