"""The command `shareverse`: one thin function per command.

Prefect, torch and Ray are imported by the commands that need them, so that `shareverse --help` is quick.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.app import (
    DatasetOption,
    OverrideOption,
    ParamOption,
    PresetOption,
    Target,
    TargetOption,
    WatchOption,
    app,
    command,
    exit_with,
    flow_parameters,
    parse_assignments,
)


def use_home_services() -> None:
    """Let Prefect find this home's services. It reads the environment when it is imported, so call this first.

    Where one of them does not run, the command ends with a sentence.
    """
    from infra.stack import StackError, use_services
    from infra.storage import StorageError

    try:
        use_services()
    except (StackError, StorageError) as error:
        raise exit_with(error) from error


def run_flow(flow: str, target: str, parameters: dict[str, Any], *, watch: bool) -> None:
    """Run a flow's deployment on the server at PREFECT_API_URL, or on this home's own where that is not set."""
    if not os.environ.get("PREFECT_API_URL"):
        use_home_services()
    from flows.run_log import RunFailed, start_run, watch_run
    from infra.installation import shell_command

    deployment = f"{flow}/{target}"
    try:
        run_id = start_run(deployment, parameters)
        print(f"{deployment} is run {run_id}.", flush=True)
        if watch:
            watch_run(deployment, run_id)
    except RunFailed as error:
        raise exit_with(error) from error
    except KeyboardInterrupt:
        raise exit_with(
            f"{deployment} goes on: end it on Prefect's page, or everything by `{shell_command('down')}`."
        ) from None


def folder_of(dataset: str) -> Path:
    """Return the folder of a data set that was given by its folder, or by its name in the state folder."""
    from infra.storage import home

    return Path(dataset) if os.path.exists(dataset) else home() / "datasets" / dataset


def perform_on_services(action: str) -> None:
    """Perform `up`, `down` or `status`; end the command with code 1 where that fails."""
    from infra.stack.__main__ import perform

    if code := perform(action):
        raise typer.Exit(code)


@command("shareverse up")
def up() -> None:
    """Start Prefect, MLflow and a worker.

    They listen on 127.0.0.1 only; what runs already is left alone. Prints their addresses.
    """
    perform_on_services("up")


@command("shareverse down")
def down() -> None:
    """End exactly what `up` started.

    Flow runs end with their worker; run again, they go on where they stopped.
    """
    perform_on_services("down")


@command("shareverse status demo")
def status(
    dataset: Annotated[str, typer.Argument(help="A data set's name or folder (default: the services).")] = "",
) -> None:
    """Print a line per service, or a data set's progress.

    Of a service: name, state, address and process id. Of a data set: what is recorded, the rate and the time left, by
    town and type; the servers by node; what was lost. Also while it is being recorded.
    """
    if not dataset:
        return perform_on_services("status")
    from tasks.recording.status import ERRORS, print_progress

    try:
        print_progress(folder_of(dataset))
    except ERRORS as error:
        raise exit_with(error) from error


@command("shareverse demo")
def demo() -> None:
    """Record, train and score a small model.

    About 20 minutes on two cores, with nothing but this machine; starts the services. Run again, it goes on where it
    stopped, or says that all is done.
    """
    from infra.installation import CODE

    # In a process of its own: as children of this one, ended services would stay zombies, and `down` wait for them.
    if code := subprocess.run([sys.executable, "-m", "infra.stack", "up"], cwd=CODE, check=False).returncode:
        raise typer.Exit(code)
    use_home_services()
    from flows.demo import main

    raise typer.Exit(main())


@command("shareverse collect --dataset crossings --preset demo --override 'trajectory_types=[\"crossing\"]'")
def collect(
    dataset: DatasetOption = None,
    preset: PresetOption = None,
    override: OverrideOption = None,
    param: ParamOption = None,
    target: TargetOption = Target.LOCAL,
    watch: WatchOption = True,
) -> None:
    """Record a data set of clip pairs.

    What a plan preset says, going on where an earlier run stopped. Runs the deployment collect-dataset of
    the services that `shareverse up` starts.
    """
    parameters = flow_parameters({"dataset": dataset, "plan_preset": preset}, override, param)
    run_flow("collect-dataset", target, parameters, watch=watch)


@command("shareverse preview demo --maps maps --pictures pictures")
def preview(
    preset: Annotated[str, typer.Argument(help="A plan preset's name, or the full path of a TOML file.")],
    maps: Annotated[Path, typer.Option(help="Folder of the towns' road networks, TOWN.xodr.")],
    pictures: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw every town with its paths.")] = None,
    override: OverrideOption = None,
) -> None:
    """Print what a plan gives on given road networks.

    The scenes by town and trajectory type, and what lacks; no simulator is needed.
    """
    from tasks.planning.preview import main

    changes = [f"--override={option}" for option in override or ()]
    drawn = [f"--pictures={pictures}"] if pictures else []
    raise typer.Exit(main([*changes, *drawn, "--", preset, str(maps)]))


@command("shareverse replay demo RECORDING --out again")
def replay(
    dataset: Annotated[str, typer.Argument(help="A data set's name or folder.")],
    recording: Annotated[str, typer.Argument(help="The recording's id, as in the plan and in meta.json.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the recording and the videos.")],
    carla: Annotated[str, typer.Option(metavar="FILE", help="CarlaUE4.sh (default: the embedded server).")] = "",
    maps: Annotated[str, typer.Option(metavar="DIR", help="Folder of further towns for the embedded server.")] = "",
) -> None:
    """Record one row of a plan again, alone.

    Writes videos with what is stored on the left and the new one on the right, and says whether the bytes are equal.
    """
    from infra.carla_servers import SimulatorSpec
    from tasks.recording.replay import ERRORS, replay_recording

    spec = SimulatorSpec("carla" if carla else "embedded", carla, maps_dir=maps)
    try:
        for line in replay_recording(folder_of(dataset), recording, spec, out):
            print(line, flush=True)
    except ERRORS as error:
        raise exit_with(error) from error


@command("shareverse train --dataset demo --preset demo --override ema_decay=0.99 --param run_name=slow-average")
def train(
    dataset: DatasetOption = None,
    preset: PresetOption = None,
    override: OverrideOption = None,
    param: ParamOption = None,
    target: TargetOption = Target.LOCAL,
    watch: WatchOption = True,
) -> None:
    """Train a model on a data set, then score it.

    What a model preset says, going on where an earlier run stopped. Runs the deployment train-shareverse of
    the services that `shareverse up` starts.
    """
    parameters = flow_parameters({"dataset": dataset, "preset": preset}, override, param)
    run_flow("train-shareverse", target, parameters, watch=watch)


@command("shareverse preflight paper --gpus 8 --gpu-memory-gb 80 --host-memory-gb 512")
def preflight(
    preset: Annotated[str, typer.Argument(help="A model preset's name, or the path of a TOML file.")],
    gpus: Annotated[int | None, typer.Option(min=0, help="Cards, a process each (default: this machine's).")] = None,
    gpu_memory_gb: Annotated[float | None, typer.Option(min=0, help="Of each (default: this machine's).")] = None,
    host_memory_gb: Annotated[float | None, typer.Option(min=0, help="Free (default: this machine's).")] = None,
    pairs_per_s: Annotated[float | None, typer.Option(min=1e-9, help="A measured rate, for the time.")] = None,
    override: OverrideOption = None,
) -> None:
    """Print what a training needs, and whether it fits. Exits with 1 where it does not."""
    from tasks.training.fit import ERRORS, ask

    try:
        ask(preset, parse_assignments(override, "--override"), (gpus, gpu_memory_gb, host_memory_gb), pairs_per_s)
    except ERRORS as error:
        raise exit_with(error) from error


@command("shareverse evaluate --run 1a2b3c4d5e6f --param split=val")
def evaluate(
    run_id: Annotated[str | None, typer.Option("--run", help="The run's id (default: the one opened last).")] = None,
    dataset: DatasetOption = None,
    param: ParamOption = None,
    watch: WatchOption = True,
) -> None:
    """Score a run's last checkpoint again.

    On towns never trained on. Runs the deployment evaluate-shareverse of the services that `shareverse up` starts.
    """
    parameters = flow_parameters({"dataset": dataset, "run_id": run_id}, None, param)
    run_flow("evaluate-shareverse", Target.LOCAL, parameters, watch=watch)


@command("shareverse generate --run 1a2b3c4d5e6f --clip KEY --out videos")
def generate(
    out: Annotated[Path, typer.Option(help="Folder for the videos.")],
    clip: Annotated[str | None, typer.Option(help="Key of a clip of the run's data set.")] = None,
    pictures: Annotated[
        list[str] | None, typer.Option(metavar="FILE...", help="In place of a clip: a first mosaic per agent.")
    ] = None,
    more_pictures: Annotated[list[str] | None, typer.Argument(metavar="", hidden=True)] = None,
    trajectories: Annotated[Path | None, typer.Option(help="JSON file with CARLA poses per agent.")] = None,
    model: Annotated[str | None, typer.Option(metavar="DIR", help="Folder that `shareverse export` wrote.")] = None,
    run_id: Annotated[str, typer.Option("--run", help="The run's id (default: the one opened last).")] = "",
    steps: Annotated[int, typer.Option(help="Sampling steps (0: the preset's).")] = 0,
    windows: Annotated[int, typer.Option(help="Windows of the model's length, one after another.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the noise, from 0.")] = 0,
) -> None:
    """Generate a clip, or what follows own pictures.

    A clip with a trained run, own pictures with an exported model; writes mosaics and views as videos. Own pictures:
    `shareverse generate --pictures a0.png a1.png --trajectories t.json --model DIR --out videos` (docs/USAGE.md).
    """
    from tasks.evaluation.__main__ import main

    if more_pictures and not pictures:
        raise typer.BadParameter(f"{more_pictures[0]!r} belongs to no option; pictures follow --pictures.")
    options = {
        "run": run_id, "clip": clip, "trajectories": trajectories, "model": model, "out": out, "steps": steps,
        "windows": windows, "seed": seed,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    files = [f"./{file}" if file.startswith("-") else file for file in [*(pictures or []), *(more_pictures or [])]]
    raise typer.Exit(main(["generate", *words, *(["--pictures", *files] if files else [])]))


@command("shareverse export 1a2b3c4d5e6f my-model")
def export(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or `last`: the one opened last.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    merge: Annotated[bool, typer.Option(help="LoRA: updates in the base's weights, or beside them.")] = True,
) -> None:
    """Write a run's model as a folder to hand on.

    A diffusers pipeline (weights as safetensors), and a model card with what the evaluation measured.
    """
    from tasks.evaluation.__main__ import ERRORS
    from tasks.evaluation.export import export_run
    from tasks.runs.run import read_run

    try:
        export_run(read_run("" if run_id == "last" else run_id), folder, merge=merge)
    except ERRORS as error:
        raise exit_with(error) from error
    except OSError as error:
        raise exit_with(
            f"{error.filename or folder}: {error.strerror or error}: make room, or name another DIR."
        ) from error
    print(folder)


@command("shareverse export-base 1a2b3c4d5e6f my-base")
def export_base(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or `last`: the one opened last.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
) -> None:
    """Write a base's last checkpoint as a folder to train from.

    For runs of the deployment train-base; a preset's `base_model` and `fitted_codec` take the folder.
    """
    from tasks.evaluation.__main__ import ERRORS
    from tasks.runs.run import read_run
    from tasks.training.base import write_base

    try:
        print(write_base(read_run("" if run_id == "last" else run_id), folder))
    except ERRORS as error:
        raise exit_with(error) from error


@command("shareverse play 1a2b3c4d5e6f --scene 6-hidden-van --steps 4")
def play(
    model: Annotated[
        str, typer.Argument(help="A run's id, or a folder that `export` wrote (default: the run opened last).")
    ] = "",
    scene: Annotated[str, typer.Option(help="The scene to begin with (default: the first).")] = "",
    steps: Annotated[int, typer.Option(help="Sampling steps per chunk of frames (0: the model's own).")] = 0,
    chunk: Annotated[int, typer.Option(help="Frames taken of each chunk: fewer answer keys sooner (0: all).")] = 0,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1 (0: a free one).")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page, or print its address only.")
    ] = True,
) -> None:
    """Drive two cars in a generated world, in a browser.

    Two seats: keys W A S D and the arrows on one page, or a link for each of two browsers. Prints the page's address.
    """
    from tasks.play.play import ERRORS
    from tasks.play.play import play as serve

    try:
        serve(model, scene, steps=steps, chunk=chunk, port=port, browser=browser)
    except ERRORS as error:
        raise exit_with(error) from error


@command("shareverse convert my-clips ~/.local/share/shareverse/datasets/mine --view 360x240")
def convert(
    folder: Annotated[Path, typer.Argument(help="train/NAME/, val/NAME/, test/NAME/ (docs/OTHER_DATA.md).")],
    dataset: Annotated[Path, typer.Argument(help="Folder to make, best under the state folder's datasets/.")],
    frames: Annotated[int, typer.Option(help="Frames of a stored clip, 8k+1.")] = 49,
    view: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the stored views (default: as they are).")] = None,
) -> None:
    """Make a data set of clips of other origin.

    From videos, cameras and, where there is any, depth.
    """
    from tasks.sharding.__main__ import main

    size = [f"--view={view}"] if view is not None else []
    raise typer.Exit(main(["convert", f"--frames={frames}", *size, "--", str(folder), str(dataset)]))


@command("shareverse verify demo")
def verify(
    dataset: Annotated[str, typer.Argument(help="Folder, URL, or name in the state folder, of a data set.")],
) -> None:
    """Read a data set from end to end.

    Compares every hash and count, and checks every camera, pose and frame.
    """
    from infra.places import is_url
    from tasks.sharding.__main__ import main

    raise typer.Exit(main(["verify", "--", dataset if is_url(dataset) else str(folder_of(dataset))]))


if __name__ == "__main__":
    app()
