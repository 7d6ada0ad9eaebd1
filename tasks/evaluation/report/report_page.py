"""The report as a page: what it says, its figures with intervals, its plots, and every film side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.evaluation.measures.shared_world.drift import BY_WINDOW
from tasks.evaluation.measures.shared_world.figures import label_of
from tasks.evaluation.report.films import LARGEST_ERROR
from tasks.evaluation.report.page import (
    Cell,
    Estimate,
    Figure,
    Missing,
    PageVideo,
    Row,
    Section,
    Table,
    Text,
    Video,
    render,
)
from tasks.evaluation.report.pictures import RECORDED, SMALL_CRF, Film, jpeg, place_of, stacked, write_video
from tasks.evaluation.report.report import HIGHER_IS_BETTER, METRICS, Report, by_rollout_window, metric_name
from tasks.evaluation.scoring.scores import FULL_STEPS, ONE_STEP

DIGITS = {"psnr": 2, "ssim": 3, "lpips": 3, "temporal_flickering": 4}
ENDS = ("_low", "_high")
ROLLOUT_LABELS = dict(zip(BY_WINDOW, ("PSNR, dB", "sharpness", "other car found", "bearing error, deg"), strict=True))
ARROWS = {True: " ↑", False: " ↓", None: ""}


def estimate(figure: dict[str, float], digits: int) -> Estimate:
    return Estimate(figure["mean"], figure.get("low"), figure.get("high"), digits)


def named(metric: str) -> str:
    """Return what a figure is called, with an arrow that tells which way is better."""
    return (METRICS.get(metric) or label_of(metric).replace("_", " ")) + ARROWS[HIGHER_IS_BETTER.get(metric)]


def measured(report: Report) -> list[str]:
    """Return the metrics of the rows in the order in which they are declared."""
    found = {key for row in report.rows for key, value in row.items() if isinstance(value, dict)}
    declared = [metric for metric in (*METRICS, *HIGHER_IS_BETTER) if metric in found]
    return list(dict.fromkeys([*declared, *sorted(found)]))


def digits_of(report: Report, metric: str) -> int:
    """Return the decimals for a metric: those it is known with, else by how large its values are."""
    largest = max(abs(row[metric]["mean"]) for row in report.rows if metric in row)
    return DIGITS.get(metric, 2 if largest >= 2 else 3)


def order_cell(report: Report, metric: str) -> str | None:
    """Say whether ceiling, model and floor follow each other, at each number of steps."""
    found = report.orders.get(metric, {})
    failed = [steps for steps, holds in found.items() if not holds]
    if not failed:
        return "holds" if found else None
    return "does NOT hold" if len(failed) == len(found) else f"NOT at {failed[0]}"


def pictures_table(report: Report) -> Table:
    """Return the paper's figures: one line per source."""
    metrics = [metric for metric in measured(report) if metric in METRICS]
    rows = []
    for row in report.rows:
        cells: list[Cell] = [estimate(row[m], digits_of(report, m)) if m in row else None for m in metrics]
        rows.append(
            Row(row["label"], [*cells, Estimate(row["windows"], digits=0)], strong=row["row"] in (FULL_STEPS, ONE_STEP))
        )
    rows.append(Row("order", [*(order_cell(report, metric) for metric in metrics), None]))
    return Table(["source", *map(named, metrics), "windows"], rows, "Pictures", HOW_TO_READ)


HOW_TO_READ = (
    "Means over windows, below them 95 % intervals over scenes. Order: whether a figure puts the ceiling (ground truth "
    "or codec), the model, the model without exchange where there is one, and another scene's video in this order, "
    "over the windows that all of them have; where it does not, the figure says nothing about the model."
)


def shared_table(report: Report) -> Table | None:
    """Return every other figure but those by window of a rollout: one line per figure, one column per source."""
    metrics = [metric for metric in measured(report) if metric not in METRICS and not metric.startswith(BY_WINDOW)]
    sources = [row for row in report.rows if any(metric in row for metric in metrics)]
    rows = []
    for metric in metrics:
        digits = digits_of(report, metric)
        cells: list[Cell] = [estimate(row[metric], digits) if metric in row else None for row in sources]
        rows.append(Row(named(metric), [order_cell(report, metric), *cells]))
    columns = ["figure", "order", *(row["label"] for row in sources)]
    note = "Each figure's definition, range and failure cases: docs/METRICS.md."
    return Table(columns, rows, "Shared world", note) if rows else None


def long_videos_table(report: Report) -> Table | None:
    """Return what happens when each window goes on from the one before: one line per figure and source, one column per
    window."""
    rows: list[Row] = []
    for name in BY_WINDOW:
        for row in report.rows:
            if found := by_rollout_window(row, name):
                cells: list[Cell] = [estimate(figure, 2) if figure else None for figure in found]
                rows.append(Row(f"{ROLLOUT_LABELS[name]}: {row['label']}", cells))
    if not rows:
        return None
    longest = max(len(row.cells) for row in rows)
    rows = [replace(row, cells=[*row.cells, *[None] * (longest - len(row.cells))]) for row in rows]
    columns = ["figure: source", *(f"window {number}" for number in range(1, longest + 1))]
    return Table(columns, rows, "Long videos", "Each window goes on from the last frame of the one before.")


def further_table(report: Report) -> Table | None:
    """Return the figures that stand in no row, with their intervals."""
    rows: list[Row] = []
    shown = {metric_name(row["row"], metric, "") for row in report.rows for metric in measured(report)}
    for name, value in report.metrics.items():
        bare = name[name.index("/") :]
        if name.endswith(ENDS) or bare in shown:
            continue
        low, high = (report.metrics.get(f"{name}{end}") for end in ENDS)
        digits = 2 if "psnr" in name or abs(value) >= 2 else 3
        rows.append(Row(bare[1:].replace("_", " ").replace("/", ": "), [Estimate(value, low, high, digits)]))
    return Table(["figure", "value"], rows, "Further figures") if rows else None


def missing_table(report: Report) -> Table | None:
    """Return one line per figure and reason, with the sources that lack it."""
    labels = {row["row"]: row["label"] for row in report.rows}
    lacking: dict[tuple[str, str], list[str]] = {}
    for name, reason in report.missing.items():
        source, _, metric = name.rpartition("/")
        lacking.setdefault((metric, reason), []).append(labels.get(source, source))
    rows = [Row(named(metric), [Missing(reason), Missing(", ".join(filter(None, sources)) or "all")])
            for (metric, reason), sources in lacking.items()]  # fmt: skip
    return Table(["figure", "why there is none", "sources"], rows, "Not measured") if rows else None


def groups_tables(report: Report) -> list[Section]:
    """Return a table of PSNR for town, weather, type and distance."""
    by_row = {row["row"]: row["label"] for row in report.rows if row["row"] in report.psnr_by_group}
    if not by_row:
        return []
    sections: list[Section] = []
    for title, groups in next(iter(report.psnr_by_group.values())).items():
        rows = []
        for group in groups:
            found = [report.psnr_by_group[row][title].get(group) for row in by_row]
            cells: list[Cell] = [estimate(figure, 2) if figure else None for figure in found]
            scenes = max(int(figure["scenes"]) for figure in found if figure)
            rows.append(Row(group.replace("_", " "), [*cells, Estimate(scenes, digits=0)]))
        sections.append(Table([title, *by_row.values(), "scenes"], rows))
    note = "PSNR, dB. A group of one scene has no interval. Distances are counted by frame, the rest by window."
    return [Text([note], "By group", "quiet"), *sections]


def worst_table(report: Report) -> Table | None:
    """Return the windows in which the model is worst."""
    if not report.worst:
        return None
    columns = {row["row"]: row["label"] for row in report.rows if row["row"] in report.worst[0]["psnr"]}
    rows = []
    for line in report.worst:
        place = ", ".join(line[title].replace("_", " ") for title in ("town", "type", "weather"))
        psnr = [line["psnr"].get(row) for row in columns]
        rows.append(Row(place, [None if value is None else Estimate(value, digits=2) for value in psnr]))
    return Table(["window", *columns.values()], rows, note="PSNR, dB, the lowest first; one window per recording.")


def video(film: Film, fps: float) -> Video:
    """Return a film as clips side by side: both agents above each other in each."""
    clips = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for label, videos in film.sources.items():
            frames = stacked(videos, film.views)
            write_video(path, frames, fps, width=frames.shape[2], crf=SMALL_CRF)
            marks = [f"agent {agent}" for agent in range(len(videos))] if label == RECORDED else []
            clips.append(PageVideo(path.read_bytes(), label, marks, jpeg(frames[-1])))
    psnr = " · ".join(f"{label} {value:.2f}" for label, value in film.psnr_db.items())
    frames_in_all = next(iter(film.sources.values())).shape[1]
    return Video(clips, fps, frames_in_all, place_of(film.window), f"PSNR, dB: {psnr}. Window {film.window.name}.")


def films_sections(report: Report, films: Sequence[Film], fps: float) -> list[Section]:
    """Return the films, the worst apart, and how to read them."""
    best, worst = [film for film in films if not film.worst], [film for film in films if film.worst]
    mosaics = any(film.views == "four" for film in films)
    how = (
        f"{'A picture holds four views: front and rear above, left and right below. ' if mosaics else ''}"
        "Frame 0 is given, all later ones are generated; one sampling step gives the mean of what is likely. "
        f"Error maps: the mean difference of the colours, black for none, yellow for {LARGEST_ERROR} of 1 or more."
    )
    chosen = "These were chosen because the agents see each other largest here, whatever the model makes of it."
    lowest = "The lowest PSNR at the full number of steps; windows that are among the videos above are not shown again."
    table = worst_table(report)
    sections: list[Section] = [Text([how, chosen], "Videos", "quiet")] if best else []
    sections += [video(film, fps) for film in best]
    if table is not None:
        sections += [Text([lowest], "Where it is worst", "quiet"), table]
    return sections + [video(film, fps) for film in worst]


def plots(folder: Path, names: Sequence[str]) -> list[Section]:
    """Return the plots that lie in `folder`."""
    sections: list[Section] = []
    for number, name in enumerate(names):
        light, dark = ((folder / f"{name}{end}.png").read_bytes() for end in ("", "_dark"))
        alt = name.replace("_", " ").replace("psnr", "PSNR")
        sections.append(Figure(light, alt, dark, heading="" if number else "Where it is good and where not"))
    return sections


def report_sections(
    report: Report, films: Sequence[Film], fps: float, folder: Path, names: Sequence[str]
) -> list[Section]:
    """Return everything that the report holds."""
    still: list[Any] = []
    if (folder / "still.png").exists():
        still = [Figure((folder / "still.png").read_bytes(), "recorded and generated, frame by frame", wide=True)]
    tables = [pictures_table(report), shared_table(report), long_videos_table(report), further_table(report),
              missing_table(report)]  # fmt: skip
    return [
        Text(report.verdict, tone="verdict"),
        *still,
        *[table for table in tables if table],
        *plots(folder, names),
        *films_sections(report, films, fps),
        *groups_tables(report),
        Text([report.convention], "How the figures are taken", "quiet"),
    ]


def write_page(
    report: Report, title: str, films: Sequence[Film], fps: float, folder: Path, plots: Sequence[str]
) -> None:
    """Write `report.html` from the report, its films and the plots and still that lie in `folder`."""
    sections = report_sections(report, films, fps, folder, plots)
    (folder / "report.html").write_text(render(title, sections, subtitle=f"checkpoint {report.checkpoint}"))
