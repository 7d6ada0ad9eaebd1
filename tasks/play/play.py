"""`shareverse play`: load a model, open the page, and serve it until Ctrl-C."""

from __future__ import annotations

import os
import secrets
import webbrowser
from typing import Any

from infra.storage import StorageError, home
from model.codec import CodecError
from model.presets import PresetError
from model.weights import WeightsError
from tasks.encoding.latents import EncodingError
from tasks.evaluation.errors import EvaluationError
from tasks.play.errors import PlayError
from tasks.play.scenes import read_scene, scene_names
from tasks.play.server import HOST, Play, build_server, open_port
from tasks.play.session import Session
from tasks.play.truth import Truth
from tasks.play.world_model import WorldModel, load_world_model
from tasks.runs.errors import RunError

ERRORS = (PlayError, RunError, EvaluationError, EncodingError, CodecError, PresetError, WeightsError, StorageError)
"""What `play` raises for what cannot be played, each in a sentence."""
MOST_STEPS = 1000


def describe(model: WorldModel, chunk: int) -> dict[str, Any]:
    """Return what the page says of a model."""
    return {
        "model": model.name, "steps": model.steps, "chunk": chunk, "student": model.is_student,
        "device": str(model.device), "view": [model.view_width, model.view_height],
    }  # fmt: skip


def play(
    model: str = "", scene: str = "", *, steps: int = 0, chunk: int = 0, port: int = 0, browser: bool = True
) -> None:
    """Serve a session of a run or an exported folder until Ctrl-C; print one line with its full address.

    `steps`: of sampling per chunk, 0: the model's own; `chunk`: new frames taken of each chunk, 0: all; `port` 0: a
    free one. PlayError for what cannot be played, before the model is loaded where that can be; else the loaders' own.
    """
    for name, value, most in (("--steps", steps, MOST_STEPS), ("--chunk", chunk, MOST_STEPS), ("--port", port, 65535)):
        if not 0 <= value <= most:
            raise PlayError(f"{name} is {value}: give 1 to {most}, or leave it out.")
    scenes = {name: read_scene(name) for name in scene_names()}
    if scene and scene not in scenes:
        raise PlayError(f"there is no scene {scene!a:.80}: the scenes are {', '.join(scenes)}.")
    listener = open_port(port)
    try:
        world = load_world_model(model, steps)
        state = home() / "play"
        session = Session(world, scenes, scene or next(iter(scenes)), state / "takes", chunk)
        truth = Truth(session, state / "logs")
        token = secrets.token_urlsafe(24)
        serving = Play(session, truth, describe(world, session.chunk), token)
        server = build_server(serving, listener)
        address = f"http://{HOST}:{listener.getsockname()[1]}/?token={token}"
        listener.listen()
        print(f"ShareVerse is at {address} (Ctrl-C ends it)", flush=True)
        if browser and os.environ.get("DISPLAY", os.name == "nt"):
            webbrowser.open(address)
        session.begin()
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            print("The session is over.", flush=True)
        finally:
            told = len(session.notices)
            truth.end()
            session.end()
            print("".join(f"{notice}\n" for notice in session.notices[told:]), end="", flush=True)
    finally:
        listener.close()
