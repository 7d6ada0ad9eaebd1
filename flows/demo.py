"""The demo: run the deployments as a user would, show their logs, print the outcome and where to look.

Two acts: a model of two cars, recorded, trained and scored; then the proof that its agents share a world, by a fact
that only one of them can know.
"""

from __future__ import annotations

import sys
import time

from flows.run_log import RunFailed, start_run, watch_run
from infra.installation import shell_command
from infra.reading import read_bytes, read_json
from infra.stack import password_hint, status_lines
from infra.storage import home
from tasks.benchmark.arms import ablation_of
from tasks.benchmark.outcomes import report_folder, standing_of
from tasks.benchmark.page import PAGE_FILE, PICTURE_FILE
from tasks.benchmark.summary import row_of, table

BASELINE_FIGURES = ("/psnr", "/ssim")
"""Figures that are printed for the baselines; the page has the rest."""


def run_and_watch(deployment: str) -> None:
    """Run a deployment and print its log until it ends; raise RunFailed unless it completed."""
    print(f"\n== prefect deployment run '{deployment}'", flush=True)
    watch_run(deployment, start_run(deployment, {}))


def outcome_lines() -> list[str]:
    """Return the lines on the last run: its figures, its verdict, and where to look.

    RunFailed when the run or its report cannot be read.
    """
    advice = f"run {shell_command('demo')} again."
    run_id = read_bytes(home() / "runs" / "last", advice, RunFailed).decode("ascii", "replace").strip()
    run_dir = home() / "runs" / run_id
    report = read_json(run_dir / "evaluation" / "report.json", advice, error=RunFailed)
    lines = ["", "== Outcome", f"run {run_dir.name}, {run_dir}"]
    printed = {
        name: value
        for name, value in report["metrics"].items()
        if name.count("/") == 1 or name.endswith(BASELINE_FIGURES)
    }
    lines += [f"  {name:<40} {value:8.3f}" for name, value in printed.items()]
    lines += [f"  {name:<40} {reason}" for name, reason in report["missing"].items() if "/" not in name]
    lines += ["", *report["verdict"], ""]
    lines += [f"videos and report   {run_dir / 'evaluation'}", f"this run in MLflow  {report['mlflow_url']}"]
    return lines


def hidden_fact_lines() -> list[str]:
    """Return the lines on the hidden facts: figures, and where to find the picture that explains them."""
    standing = standing_of(ablation_of("demo"))
    rows = table([row_of(score) for _, score in standing]).splitlines()
    folder = next(report_folder(run, "demo") for run, score in standing if score.arm.name == "cross")
    pages = [f"look at             {folder / PICTURE_FILE}", f"and, as a page,     {folder / PAGE_FILE}"]
    return ["", "== Does what one car knows reach the other?", *rows, "", *pages]


def main() -> int:
    started = time.monotonic()
    try:
        run_and_watch("collect-dataset/local")
        run_and_watch("train-shareverse/local")
        run_and_watch("ablate-shareverse/demo")
        lines = [*outcome_lines(), *hidden_fact_lines()]
    except RunFailed as error:
        print(error, file=sys.stderr)
        return 1
    services = ["", f"== Services ({shell_command('down')} ends them)", *status_lines(), password_hint()]
    print("\n".join([*lines, *services]))
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
