"""Records one row of a plan again, alone, and compares it with what is stored, for `shareverse replay`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ffmpeg
import imageio_ffmpeg

from infra.carla_servers import CarlaServerError, SimulatorSpec
from infra.reading import read_json
from infra.storage import StorageError
from tasks.planning.errors import PlanningError
from tasks.planning.rows import PLAN_FILE, PlannedRecording, read_plan
from tasks.planning.spares import read_spares
from tasks.recording.actor import RecorderActor
from tasks.recording.encode import BITEXACT, BT709, H264
from tasks.recording.errors import RecordingError
from tasks.recording.recorder import AGENT_NAMES

ERRORS = (RecordingError, CarlaServerError, PlanningError, StorageError, OSError)
"""What the command says in one sentence."""


def replay_recording(dataset_dir: Path, recording_id: str, spec: SimulatorSpec, out: Path) -> Iterator[str]:
    """Record a row of the plan again on a server of its own; yield what came of it, a sentence at a time.

    The recording goes to out/recordings/, the videos to out/<recording>-<window>.mp4: the agents one above the other,
    what is stored on the left. One of ERRORS where the row is not planned or cannot be recorded.
    """
    row = planned_row(dataset_dir, recording_id)
    yield f"Recording {recording_id} again: {row.town}, {row.trajectory_type}, {row.weather}, {row.ticks} ticks."
    reason = record_alone(row, spec, out)
    if reason:
        yield f"A quality gate rejects it, and nothing of it is kept: {reason}"
        return
    made, stored = out / "recordings" / recording_id, dataset_dir / "recordings" / recording_id
    if (stored / "recording.json").is_file():
        yield compared(files_of(stored), files_of(made))
    else:
        yield f"{dataset_dir} stores nothing of it to compare with."
    for window in row.windows:
        name = f"w{window:03d}"
        video = out / f"{recording_id}-{name}.mp4"
        folders = [folder for folder in (stored / name, made / name) if folder.is_dir()]
        write_beside([[folder / f"{agent}.mp4" for agent in AGENT_NAMES] for folder in folders], video)
        yield str(video)


def planned_row(dataset_dir: Path, recording_id: str) -> PlannedRecording:
    """Return the row of a plan, or of its spares. RecordingError where there is none."""
    rows = [*read_plan(dataset_dir / PLAN_FILE), *read_spares(dataset_dir)]
    for row in rows:
        if row.recording_id == recording_id:
            return row
    raise RecordingError(
        f"{dataset_dir} plans no recording {recording_id!r}: plan.parquet has {len(rows)}, such as "
        f"{rows[0].recording_id if rows else 'none'}."
    )


def record_alone(row: PlannedRecording, spec: SimulatorSpec, out: Path) -> str:
    """Make out/recordings/<id>/; return why a quality gate rejects it, empty where none does. One of ERRORS."""
    (out / "recordings").mkdir(parents=True, exist_ok=True)
    actor = RecorderActor(spec, str(out), "replay")
    try:
        actor.server.start()
        kind, reason = actor.attempt(row)
    finally:
        actor.close()
    if kind != "done":
        raise RecordingError(
            f"{row.recording_id} could not be recorded: {reason} The server's log is {actor.server.log}."
        )
    return reason


def files_of(folder: Path) -> dict[str, str]:
    """Return the hashes by name of a recording's files, as its record says."""
    record = read_json(folder / "recording.json", "record it again.", error=RecordingError)
    return dict(record["files"])


def compared(stored: dict[str, str], made: dict[str, str]) -> str:
    """Return in a sentence whether two recordings are equal."""
    names = sorted(stored | made)
    different = [name for name in names if stored.get(name) != made.get(name)]
    if not different:
        return f"All {len(names)} files are equal to the stored ones, byte for byte."
    return f"{len(different)} of {len(names)} files differ from the stored ones: {', '.join(different)}."


def write_beside(columns: list[list[Path]], path: Path) -> None:
    """Write one video of several of a size: those of a column above each other. RecordingError with ffmpeg's words."""
    stacks = [ffmpeg.filter([ffmpeg.input(str(file)) for file in files], "vstack", len(files)) for files in columns]
    picture = ffmpeg.filter(stacks, "hstack", len(stacks)) if len(stacks) > 1 else stacks[0]
    output = picture.output(str(path), **(H264 | BT709 | BITEXACT)).global_args("-loglevel", "error", "-nostdin")
    try:
        output.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True, capture_stderr=True)
    except ffmpeg.Error as error:
        words = error.stderr.decode(errors="replace").strip()[-300:]
        raise RecordingError(f"{path} could not be written: {words}") from error
