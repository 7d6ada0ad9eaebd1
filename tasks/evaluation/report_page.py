"""The report as a page: what it says, its figures with intervals, its plots, and every film side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.evaluation.films import LARGEST_ERROR
from tasks.evaluation.page import (
    Cell,
    Clip,
    Estimate,
    Figure,
    Missing,
    Row,
    Section,
    Table,
    Text,
    Video,
    render,
)
from tasks.evaluation.pictures import Film, place_of, stacked, write_video
from tasks.evaluation.report import METRICS, Report

DIGITS = {"psnr": 2, "ssim": 3, "lpips": 3, "temporal_flickering": 4}
NOT_SCORED = "·"
"""Where a row has no such figure by its nature: nothing was missed."""
ENDS = ("_low", "_high")


def digits_of(metric: str, values: Sequence[float]) -> int:
    """Return the decimals for a column: those of a known figure, else by how large the values are."""
    return DIGITS.get(metric, 2 if max(map(abs, values)) >= 2 else 3)


def estimate(figure: dict[str, float], digits: int) -> Estimate:
    return Estimate(figure["mean"], figure.get("low"), figure.get("high"), digits)


def named(metric: str) -> str:
    return METRICS.get(metric, metric.replace("_", " "))


def figures_table(report: Report) -> Table:
    """Return a line a row and a column a metric, whatever they are."""
    found = list(dict.fromkeys(key for row in report.rows for key, value in row.items() if isinstance(value, dict)))
    metrics = [metric for metric in METRICS if metric in found] + [metric for metric in found if metric not in METRICS]
    digits = {
        metric: digits_of(metric, [row[metric]["mean"] for row in report.rows if metric in row]) for metric in metrics
    }
    rows = []
    for row in report.rows:
        cells: list[Cell] = [estimate(row[m], digits[m]) if m in row else NOT_SCORED for m in metrics]
        rows.append(Row(row["label"], [*cells, str(row["windows"])], strong=row["row"] in ("model", "model_1_step")))
    return Table(["source", *map(named, metrics), "windows"], rows, "Figures",
                 "Means over windows; below them 95 % intervals, over scenes.")  # fmt: skip


def further_table(report: Report) -> Table | None:
    """Return the figures that stand in no row, with their intervals."""
    rows: list[Row] = []
    said = {metric for row in report.rows for metric, value in row.items() if isinstance(value, dict)}
    for name, value in report.metrics.items():
        bare = name.split("/", 1)[-1]
        if name.endswith(ENDS) or bare.split("/")[-1].removesuffix("_shuffled_raymaps").removesuffix("_1_step") in said:
            continue
        low, high = (report.metrics.get(f"{name}{end}") for end in ENDS)
        digits = 2 if "psnr" in name or abs(value) >= 2 else 3
        rows.append(Row(bare.replace("_", " ").replace("/", ": "), [Estimate(value, low, high, digits)]))
    return Table(["figure", "value"], rows, "Further figures") if rows else None


def missing_table(report: Report) -> Table | None:
    rows = [Row(named(name), [Missing(reason)]) for name, reason in report.missing.items()]
    return Table(["figure", "why there is none"], rows, "Not measured") if rows else None


def orders_table(report: Report) -> Table | None:
    """Return ceiling to floor, and whether they follow each other as they should."""
    rows = []
    for order in report.orders:
        sign = " > " if order["above_is_better"] else " < "
        chain = sign.join(f"{label} {value:.3g}" for label, value in order["values"].items())
        rows.append(Row(order["label"], [chain, "holds" if order["holds"] else "does NOT hold"]))
    note = "A figure that does not put ceiling, model and floor in this order says nothing about the model."
    return Table(["figure", "should be in this order", ""], rows, "From ceiling to floor", note) if rows else None


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
            cells: list[Cell] = [estimate(figure, 2) if figure else NOT_SCORED for figure in found]
            scenes = max(int(figure["scenes"]) for figure in found if figure)
            rows.append(Row(group.replace("_", " "), [*cells, str(scenes)]))
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
        rows.append(Row(place, [NOT_SCORED if value is None else Estimate(value, digits=2) for value in psnr]))
    return Table(["window", *columns.values()], rows, note="PSNR, dB, the lowest first; one window a recording.")


def video(film: Film, report: Report, fps: float, heading: str) -> Video:
    """Return a film as clips side by side: both agents above each other in each."""
    clips = []
    with TemporaryDirectory() as folder:
        for number, (label, videos) in enumerate(film.sources.items()):
            path = Path(folder) / f"{number}.mp4"
            frames = stacked(videos, film.views)
            write_video(path, frames, fps, width=frames.shape[2])
            marks = [f"agent {agent}" for agent in range(len(videos))] if number == 0 else []
            clips.append(Clip(path.read_bytes(), label, marks))
    count = next(iter(film.sources.values())).shape[1]
    return Video(clips, fps, count, place_of(film.window), film.window.name, heading)


def films_sections(films: Sequence[Film], report: Report, fps: float) -> list[Section]:
    """Return the best seen and the worst films, and how to read them."""
    best, worst = [film for film in films if not film.worst], [film for film in films if film.worst]
    views = (
        "Each picture holds four views: front and rear above, left and right below. "
        if films and films[0].views == "four"
        else ""
    )
    how = (
        f"{views}Frame 0 is given, all later ones are generated. One sampling step gives the mean of what is likely. "
        f"Error maps: the mean difference of the colours, black for none, yellow for {LARGEST_ERROR} of 1 or more."
    )
    sections: list[Section] = []
    if best:
        sections.append(
            Text(
                [how, "Chosen because the agents see each other largest here, whatever the model makes of it."],
                "Videos",
                "quiet",
            )
        )
        sections += [video(film, report, fps, "") for film in best]
    table = worst_table(report)
    if table or worst:
        sections.append(
            Text(
                ["The windows with the lowest PSNR at the full number of sampling steps; those that are shown above are not repeated."], "Where it is worst", "quiet"
            )
        )
        sections += [table] if table else []
        sections += [video(film, report, fps, "") for film in worst]
    return sections


def plots(folder: Path, names: Sequence[str]) -> list[Section]:
    """Return the plots that lie in `folder`."""
    sections: list[Section] = []
    for number, name in enumerate(names):
        light, dark = ((folder / f"{name}{end}.png").read_bytes() for end in ("", "_dark"))
        alt = name.replace("_", " ").replace("psnr", "PSNR")
        sections.append(Figure(light, alt, dark, heading="" if number else "Where it is good"))
    return sections


def report_sections(
    report: Report, films: Sequence[Film], fps: float, folder: Path, names: Sequence[str]
) -> list[Section]:
    """Return everything that the report holds."""
    still: list[Any] = []
    if (folder / "still.png").exists():
        still = [Figure((folder / "still.png").read_bytes(), "recorded and generated, frame by frame", wide=True)]
    tables = [figures_table(report), further_table(report), missing_table(report), orders_table(report)]
    return [
        Text(report.verdict, tone="verdict"),
        *still,
        *[table for table in tables if table],
        *plots(folder, names),
        *films_sections(films, report, fps),
        *groups_tables(report),
        Text([report.convention], "How the figures are taken", "quiet"),
    ]


def write_page(
    report: Report, title: str, films: Sequence[Film], fps: float, folder: Path, plots: Sequence[str]
) -> None:
    """Write `report.html` from the report, its films and the plots and still that lie in `folder`."""
    sections = report_sections(report, films, fps, folder, plots)
    (folder / "report.html").write_text(render(title, sections, subtitle=f"checkpoint {report.checkpoint}"))
