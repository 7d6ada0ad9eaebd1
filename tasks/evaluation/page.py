"""One HTML page that holds everything: sentences, table, plots, still and videos; it refers to no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from tasks.evaluation.report import METRICS, Report

STYLE = """
:root { color-scheme: light; --ink: #20242c; --grey: #6e7480; --line: #e3e6eb; --soft: #f6f7f9; }
body { font: 15px/1.55 system-ui, "DejaVu Sans", sans-serif; color: var(--ink); max-width: 1080px; margin: 32px auto;
  padding: 0 24px; background: #fff }
h1 { font-size: 25px; margin: 0 } h2 { font-size: 18px; margin: 36px 0 10px } .grey { color: var(--grey) }
.verdict { background: var(--soft); border-left: 4px solid #0b6bcb; padding: 10px 18px; margin: 18px 0 }
.verdict p { margin: 6px 0 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { color: var(--grey); font-weight: 600; font-size: 13px }
td small { color: var(--grey); display: block; font-size: 11.5px } tr.model td { background: #eef5fd }
img, video { max-width: 100%; height: auto; display: block; margin: 12px 0 }
.videos { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 16px }
"""


def inline(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def cell(figure: dict[str, float] | None) -> str:
    if figure is None:
        return "<td>·</td>"
    digits = 2 if abs(figure["mean"]) >= 2 else 4
    interval = f"<small>{figure['low']:.{digits}f} … {figure['high']:.{digits}f}</small>" if "low" in figure else ""
    return f"<td>{figure['mean']:.{digits}f}{interval}</td>"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows' figures with their intervals."""
    measured = [metric for metric in METRICS if any(metric in row for row in rows)]
    head = "".join(f"<th>{METRICS[metric]}</th>" for metric in measured)
    lines = [
        f"<tr{' class=model' if row['row'].startswith('model') else ''}><td>{escape(row['label'])}</td>"
        + "".join(cell(row.get(metric)) for metric in measured)
        + f"<td>{row['windows']}</td></tr>"
        for row in rows
    ]
    return f"<table><tr><th>source</th>{head}<th>windows</th></tr>{''.join(lines)}</table>"


def write_page(report: Report, title: str, folder: Path, videos: Sequence[Path]) -> None:
    """Write `report.html` from the report and the pictures that lie in `folder`."""
    verdict = "".join(f"<p>{escape(sentence)}</p>" for sentence in report.verdict)
    missing = "".join(f"<p class=grey>{escape(name)}: {escape(reason)}.</p>" for name, reason in report.missing.items())
    pictures = "".join(
        f'<img alt="{name}" src="{inline(folder / name, "image/png")}">'
        for name in ("psnr_by_frame.png", "psnr_by_group.png")
    )
    still = folder / "still.png"
    example = f'<img alt="recorded and generated" src="{inline(still, "image/png")}">' if still.exists() else ""
    players = "".join(f'<video controls loop muted src="{inline(path, "video/mp4")}"></video>' for path in videos)
    page = f"""<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>
<h1>{escape(title)}</h1><p class=grey>{escape(report.checkpoint)}</p>
<div class=verdict>{verdict}</div>{example}
<h2>Figures</h2>{table(report.rows)}{missing}<p class=grey>{escape(report.convention)}</p>
<h2>Where it is good</h2>{pictures}
<h2>Videos</h2><div class=videos>{players}</div></html>"""
    (folder / "report.html").write_text(page)
