"""The benchmark's own page: what was hidden, who found it out, and a picture that explains it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infra.storage import atomic_dir
from tasks.benchmark.arms import Ablation, Setting
from tasks.benchmark.entries import CopyFirstFrame, GroundTruth, Warping
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.outcomes import ArmScore, Jury
from tasks.benchmark.picture import explaining_picture
from tasks.benchmark.summary import sentences
from tasks.evaluation.report.page import Cell, Estimate, Figure, Missing, Row, Section, Table, Text, render

PICTURE_FILE, PAGE_FILE = "hidden_fact.png", "report.html"
COLUMNS = {
    "accuracy": "right",
    "accuracy_decided": "right of those read",
    "accuracy_20_steps": "right, 20 steps",
    "partner_swap_accuracy": "right, partner swapped",
    "follows": "follows the changed fact",
    "keeps": "keeps the old one",
    "psnr_fact": "dB inside the fact",
    "psnr": "dB",
}
HIDDEN = (
    "At the start agent 1 sees {fact}, which a container hides from all of agent 0's cameras. Later agent 0 drives "
    "past the container and looks at it. "
)
WHAT = {
    "appearance": HIDDEN.format(fact="which of four colours a parked vehicle has"),
    "binding": HIDDEN.format(fact="which of two parked vehicles has which of two colours"),
    "trajectory": "Agent 1 keeps its lane or swerves before it passes agent 0. Only its own cameras' path tells. ",
}
WHY = (
    "A video of agent 0 that shows it right more often than chance has it from agent 1: nothing else that agent 0 is "
    "given depends on it, which is checked scene by scene."
)
CANNOT = (
    "It says nothing on picture quality, and whether one fact is passed on, not whether two worlds agree in all. "
    "Scenes are rendered by the embedded simulator unless the data card says otherwise."
)


def estimate(metrics: dict[str, float], missing: dict[str, str], name: str) -> Cell:
    """Return a figure for the table; None at other sampling steps of an entry that takes none."""
    if name not in metrics and name.endswith("_steps"):
        return None
    if name not in metrics:
        return Missing(missing.get(name, "not measured"))
    digits = 2 if name.startswith("psnr") else 3
    return Estimate(metrics[name], metrics.get(f"{name}_low"), metrics.get(f"{name}_high"), digits)


def rows_of(scores: Sequence[ArmScore], jury: Jury, columns: Sequence[str]) -> list[Row]:
    """Return the arms' rows, then what needs no learning and what cannot be exceeded."""
    rows = [
        Row(f"{score.arm.name}, seed {score.arm.seed}", [estimate(score.metrics, score.missing, n) for n in columns])
        for score in scores
    ]
    scenes = jury.scenes
    entries = (CopyFirstFrame(), Warping(scenes, both=False), Warping(scenes, both=True), GroundTruth(scenes))
    for entry in entries:
        outcome = jury.score(entry)
        metrics = outcome.metrics()
        rows.append(Row(entry.name, [estimate(metrics, outcome.missing, name) for name in columns]))
    return rows


def write_page(ablation: Ablation, setting: Setting, scores: Sequence[ArmScore], jury: Jury, folder: Path) -> Path:
    """Write the picture and the page to `folder`, whole or not at all; return the page's path."""
    arms = {score.arm.name: score for score in scores if score.arm.seed == ablation.seeds[0]}
    cross, within = arms["cross"].outcome, arms["within"].outcome
    if cross is None or within is None:
        raise BenchmarkError("the page shows an arm with exchange beside one without: score both.")
    steps = ablation.sampling_steps[0]
    cells = jury.scenes.cells
    columns = {name: title for name, title in COLUMNS.items() if any(name in score.metrics for score in scores)}
    note = (
        f"{steps} sampling step{'s' if steps > 1 else ''}; {len(jury.scenes)} scenes of towns never trained on, each "
        f"with its twin; 95 % intervals over scenes. Chance is {1 / jury.scenes.alternatives:.2f}. A video in which "
        "the judge cannot tell counts as not right, so that a control may lie below chance; of those that it can read "
        "a control gets chance right. within: blocks of equal capacity that see one's own agent only. The fact covers "
        f"{cells.mean():.1f} latent cells of agent 0's video ({cells.min():.1f} to {cells.max():.1f}), frames added up."
    )
    with atomic_dir(folder) as temporary:
        explaining_picture(jury.scenes, cross, within).save(temporary / PICTURE_FILE, optimize=True)
        sections: list[Section] = [
            Text([WHAT[setting.task] + WHY], heading="What is measured"),
            Figure((temporary / PICTURE_FILE).read_bytes(), "with exchange, without", wide=True, heading="Seen"),
            Table(["", *columns.values()], rows_of(scores, jury, list(columns)), heading="Figures", note=note),
            Text([*sentences(scores), f"The judge: {jury.detector.calibration}."], heading="In words", tone="verdict"),
            Text([CANNOT], heading="What it does not say", tone="quiet"),
        ]  # fmt: skip
        title = f"Shared-world bench: {setting.name}"
        (temporary / PAGE_FILE).write_text(render(title, sections, subtitle=f"size {ablation.size}"))
    return folder / PAGE_FILE
