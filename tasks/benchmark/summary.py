"""The arms in a table and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.benchmark.outcomes import CONTROLS, LEADS, ArmScore, lead

COLUMNS = {
    "accuracy": "accuracy",
    "accuracy_decided": "of those read",
    "accuracy_20_steps": "at 20 steps",
    "partner_swap_accuracy": "partner swapped",
    "follows": "follows",
    "keeps": "keeps",
    "psnr_fact": "dB in the fact",
    "psnr": "dB",
}


def row_of(score: ArmScore) -> dict[str, Any]:
    """Return an arm's figures as plain values."""
    arm = score.arm
    named = {"task": arm.setting.task, "distance": arm.setting.distance, "arm": arm.name, "seed": arm.seed}
    return named | score.metrics


def cell(row: dict[str, Any], name: str) -> str:
    """Return a figure with its interval where it has one; a dash where it was not measured."""
    if name not in row:
        return "–"
    text = f"{row[name]:.2f}" if name.startswith("psnr") else f"{row[name]:.3f}"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return text if low is None or high is None else f"{text} [{low:.2f}, {high:.2f}]"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table, one row per arm."""
    columns = {name: title for name, title in COLUMNS.items() if any(name in row for row in rows)}
    head = ["task", "distance", "arm", "seed", "chance", *columns.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        values = [row["task"], row["distance"], row["arm"], str(row["seed"]), f"{row['chance']:.2f}"]
        lines.append("| " + " | ".join([*values, *(cell(row, name) for name in columns)]) + " |")
    return "\n".join(lines)


def over_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per arm of a setting: means over its seeds, the lowest and the highest seed as low and high."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["distance"], row["arm"]), []).append(row)
    merged = []
    for (task, distance, arm), group in groups.items():
        found = dict(task=task, distance=distance, arm=arm, seed=f"all {len(group)}", chance=group[0]["chance"])
        for name in COLUMNS:
            values = [row[name] for row in group if name in row]
            if values:
                found |= {name: sum(values) / len(values), f"{name}_low": min(values), f"{name}_high": max(values)}
        merged.append(found)
    return merged


def sentences(scores: Sequence[ArmScore]) -> list[str]:
    """Return what the arms show, one sentence per seed, what all seeds show, and what must not be: a leak."""
    seeds = sorted({score.arm.seed for score in scores})
    lines = []
    for seed in seeds:
        by_name = {score.arm.name: score for score in scores if score.arm.seed == seed}
        cross, within = by_name.get("cross"), by_name.get("within")
        if cross is None or within is None:
            continue
        figures = cross.metrics
        lines.append(
            f"{cross.arm.setting.name}, seed {seed}: what only the other agent saw is right in "
            f"{figures['accuracy']:.1%} of the videos with exchange and in {within.metrics['accuracy']:.1%} without "
            f"(chance {figures['chance']:.0%}); with the other agent's fact changed, {figures['follows']:.1%} follow "
            f"and {figures['keeps']:.1%} keep the old one."
        )
    if all(score.outcome for score in scores):
        lines += leads(scores, seeds)
    return lines + [line for score in scores for line in leaks(score)]


def leads(scores: Sequence[ArmScore], seeds: Sequence[int]) -> list[str]:
    """Return by how much arm "cross" leads each control, all seeds together, paired by scene."""
    lines = []
    for name in CONTROLS:
        ours, controls = ([score for score in scores if score.arm.name == arm] for arm in ("cross", name))
        if ours and len(ours) == len(controls):
            accuracy, follows, fact = (lead(figure, ours, controls) for figure in LEADS)
            lines.append(
                f"cross minus {name}, {len(seeds)} seed{'s' * (len(seeds) > 1)}, paired by scene: right {accuracy}, "
                f"follows {follows}, inside the fact {fact} dB."
            )
    return lines


def leaks(score: ArmScore) -> list[str]:
    """Return what an arm gets right that nothing should have told it, in words."""
    watched = ["accuracy_uninformative", "accuracy_uninformative_decided"]
    if score.arm.name in CONTROLS:
        watched += ["accuracy", "accuracy_decided"]
    return [
        f"ATTENTION: {score.arm}: {name} {score.metrics[name]:.3f} is above chance by more than its 95 % interval: "
        "something may give the fact away, find it."
        for name in watched
        if score.metrics.get(f"{name}_low", 0.0) > score.metrics["chance"]
    ]
