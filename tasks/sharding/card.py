"""The data card: what a data set holds, how it looks, how to read its cameras. Written once per digest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.reading import read_bytes, read_json
from infra.storage import OnProgress, StorageError, atomic_dir, no_progress, sha256_bytes
from tasks.planning.roads import RoadNetwork
from tasks.planning.rows import PlannedRecording, read_plan
from tasks.planning.spares import read_spares
from tasks.sharding.contact_sheet import contact_sheet
from tasks.sharding.errors import ShardError
from tasks.sharding.reader import ClipIndex, ClipPair, read_pair
from tasks.sharding.trajectory_plot import trajectory_plot

CARD_FOLDER = "dataset_card"
COLLECT_ANEW = "move the folder away and collect the data set anew."
MAX_DRAWN, MAX_DRAWN_FACTS = 6, 2
"""Recordings drawn per town, those of different trajectory types first. Hidden facts look alike: fewer are drawn."""

SNIPPET = """
import io

import numpy as np
import webdataset as wds

sample = next(iter(wds.WebDataset("SHARD", shardshuffle=False)))
cameras = np.load(io.BytesIO(sample["cameras.npz"]))
K, c2w = cameras["K"], cameras["c2w"]  # [A, V, 3, 3] pixels; [A, V, F, 4, 4] metres
agents, views, frames = c2w.shape[:3]

# Where does agent 0 see the middle of agent 1's car in the clip's last frame?
x, y, z = cameras["agent_pose"][1, -1, :3] + (0, 0, cameras["agent_box_center"][1, 2])
world = np.array([x, -y, z, 1.0])  # CARLA's y negated: right-handed
for view, name in enumerate(["front", "rear", "left", "right"]):
    right, down, forward, _ = np.linalg.inv(c2w[0, view, -1]) @ world
    if forward > 0:
        u, v, _ = K[0, view] @ (right, down, forward) / forward
        print(f"{name}: {forward:.1f} m ahead, pixel ({u:.1f}, {v:.1f})")
"""


def choose_drawn(recordings: Sequence[PlannedRecording]) -> list[PlannedRecording]:
    """Return a few recordings, of as many trajectory types as possible, in the plan's order."""
    first_of_type: dict[str, PlannedRecording] = {}
    for row in recordings:
        first_of_type.setdefault(row.trajectory_type, row)
    others = [row for row in recordings if row not in first_of_type.values()]
    max_drawn = MAX_DRAWN_FACTS if recordings[0].fact else MAX_DRAWN
    chosen = {row.recording_id for row in [*first_of_type.values(), *others][:max_drawn]}
    return [row for row in recordings if row.recording_id in chosen]


def middle_clips(index: ClipIndex, recordings: Sequence[PlannedRecording]) -> list[ClipPair]:
    """Decode the middle clip of each recording, in which the cars meet."""
    clips = []
    for recording in recordings:
        rows = [row for row in index.rows if row["recording_id"] == recording.recording_id]
        row = rows[len(rows) // 2]
        clips.append(read_pair(row["key"], index.read(row)))
    return clips


def described_digest(marker: Path) -> str:
    """Return the digest of the data set that a card describes; empty where there is no readable card."""
    try:
        return str(read_json(marker, "").get("digest"))
    except StorageError:
        return ""


def road_network(dataset_dir: Path, row: PlannedRecording) -> RoadNetwork:
    """Return a town's roads. ShardError for a map that is not the plan's, because a damaged one would end the process
    (trap 14: malformed OpenDRIVE crashes)."""
    path = dataset_dir / "maps" / f"{row.town}.xodr"
    data = read_bytes(path, COLLECT_ANEW, ShardError)
    if sha256_bytes(data) != row.opendrive_sha256:
        raise ShardError(f"{path} is not the road network that was planned on: {COLLECT_ANEW}")
    return RoadNetwork(row.town, data.decode())


def write_card(dataset_dir: Path, *, on_progress: OnProgress = no_progress) -> bool:
    """Write dataset_card/ unless it already describes this digest; return whether it was written."""
    index = ClipIndex(dataset_dir)
    marker = dataset_dir / CARD_FOLDER / "card.json"
    if described_digest(marker) == index.digest:
        return False
    recorded = {row["recording_id"] for row in index.rows}
    planned = [*read_plan(dataset_dir / "plan.parquet"), *read_spares(dataset_dir)]
    plan = [row for row in planned if row.recording_id in recorded]
    towns = list(dict.fromkeys(row.town for row in plan))
    with atomic_dir(dataset_dir / CARD_FOLDER) as folder:
        for done, town in enumerate(towns):
            on_progress(done, len(towns), town)
            drawn = choose_drawn([row for row in plan if row.town == town and row.frames > 1])
            roads = road_network(dataset_dir, drawn[0])
            trajectory_plot(folder / f"trajectories-{town}.png", roads, drawn)
            contact_sheet(folder / f"contact-sheet-{town}.png", town, middle_clips(index, drawn))
        (folder / "README.md").write_text(card_markdown(index, plan, towns), encoding="utf-8")
        (folder / "card.json").write_text(json.dumps({"digest": index.digest}))
    on_progress(len(towns), len(towns), "")
    return True


def card_markdown(index: ClipIndex, plan: Sequence[PlannedRecording], towns: Sequence[str]) -> str:
    """Return the card as Markdown."""
    record, first = index.record, plan[0]
    most = MAX_DRAWN_FACTS if first.fact else MAX_DRAWN
    width, height = first.view_width // 2, first.view_height // 2
    shard = index.dataset_dir.resolve() / min(record["shards"])
    duration = (first.frames - 1) * first.stride * first.fixed_delta_s
    parts = [
        f"# Data card: {record['name']}",
        f"{record['clips']} pairs of clips from {len(plan)} recordings in {len(towns)} towns: two cars that meet in "
        f"CARLA, each with four cameras (front, rear, left, right), recorded in lock step.",
        markdown_table(
            ("", ""),
            [
                ("digest", f"`{record['digest']}`"),
                ("clip", f"{first.frames} frames, {1 / (first.stride * first.fixed_delta_s):.0f} a second, "
                         f"{duration:.1f} s"),
                ("picture", f"mosaic {2 * width}x{2 * height} of four {width}x{height} views, 90 degrees wide"),
                ("depth and instance ids", ", ".join(sorted({row.split for row in plan if row.record_ground_truth}))
                 or "none"),
                ("code", f"`{record['git_sha']}`"),
                ("versions", ", ".join(f"{name} {number}" for name, number in record["versions"].items())),
            ],
        ),
        "## Counts",
        cross_table(index.rows),
        *(count_table(name, record["counts"][name]) for name in ("trajectory_type", "weather", "variant")),
        *fact_sections(plan),
        "## Not in it",
        missing_text(record["missing_recordings"]),
        "## Cameras",
        record["camera_convention"],
        "Any WebDataset reader will do; nothing of ShareVerse is needed:",
        f"```python{SNIPPET.replace('SHARD', str(shard))}```",
        "## Towns",
        "Each sheet shows the clip in the middle of a recording."
        + (f" At most {most} recordings a town are drawn." if len(plan) > most * len(towns) else ""),
    ]  # fmt: skip
    for town in towns:
        split = next(row.split for row in plan if row.town == town)
        parts += [
            f"### {town} ({split})",
            f"![Trajectories in {town}](trajectories-{town}.png)",
            f"![Both agents' mosaics in {town}](contact-sheet-{town}.png)",
        ]
    return "\n\n".join(parts) + "\n"


def fact_sections(plan: Sequence[PlannedRecording]) -> list[str]:
    """Return the sections on what a data set of hidden facts can measure and what not; none for an ordinary one."""
    facts = [row for row in plan if row.fact]
    if not facts:
        return []
    counts = Counter(
        (row.fact["task"], row.fact["distance"], row.split, row.variant, row.fact["label"], row.fact["informative"])
        for row in facts
    )
    head = ("task", "distance", "split", "variant", "label", "agent 1 can know", "recordings")
    return [
        "## Hidden facts",
        "Each scene holds a fact that agent 1 can know at the start and agent 0 cannot: a container hides it from all "
        "four of its cameras, or it lies in agent 1's future. Agent 0 sees it later. A scene's twin (`fact_changed`) "
        "differs in the fact alone: agent 0's first frame and cameras are the same (train: frame 0 only). `repeat` is "
        "frame 0 recorded once more: by so much two recordings of one scene may differ.",
        "It measures whether a model passes on what one agent saw to the other agent's video. It says nothing on "
        "picture quality, on facts smaller than these, or on whether the two worlds agree in everything else; "
        "colours and vehicles are few, and a model may have learned these scenes' layout.",
        markdown_table(head, [(*key, count) for key, count in sorted(counts.items())]),
    ]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def count_table(name: str, counts: dict[str, int]) -> str:
    return markdown_table((name.replace("_", " "), "clip pairs"), list(counts.items()))


def cross_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of clip pairs per town and weather."""
    weathers = sorted({row["weather"] for row in rows})
    lines = []
    for town in dict.fromkeys(row["town"] for row in rows):
        town_rows = [row for row in rows if row["town"] == town]
        counts = [sum(row["weather"] == weather for row in town_rows) for weather in weathers]
        lines.append([town, town_rows[0]["split"], *counts, len(town_rows)])
    return markdown_table(("town", "split", *weathers, "clip pairs"), lines)


def missing_text(missing: dict[str, str]) -> str:
    """Return a table of the plan's recordings that the data set lacks, and why."""
    if not missing:
        return "Nothing: every recording of the plan is there."
    return markdown_table(("recording", "why"), list(missing.items()))
