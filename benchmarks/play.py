"""How fast `shareverse play` is: frames a second end to end and of the model alone, and from key to picture.

python benchmarks/play.py [--preset demo] [--steps 4] [--chunk 8] [--seconds 20] [--set num_layers=8 ...]

A real session behind a real socket, driven by a program instead of a page, with random weights of a preset's sizes.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from websockets.sync.client import connect

from model.build import build_pipeline, build_transformer, text_embedding
from model.codec import LinearCodec
from model.presets import Preset
from tasks.play.scenes import FRAME_S, read_scene, scene_names
from tasks.play.server import Play, build_server, open_port
from tasks.play.session import Session
from tasks.play.truth import Truth
from tasks.play.world_model import WorldModel

KEY_S = 0.5, 1.5
"""A key is pressed so long after the one before."""


def random_model(preset: Preset, steps: int) -> WorldModel:
    """Return a model of the preset's sizes with random weights."""
    video = preset.video
    codec = LinearCodec.fit(
        [torch.rand(2, 3, video.frames, video.height, video.width) * 2 - 1], preset.codec.latent_channels
    )
    pipeline = build_pipeline(preset, build_transformer(preset).eval(), codec, text_embedding(preset))
    return WorldModel(pipeline, preset.name, steps)


def drive(address: str, seconds: float) -> dict[str, Any]:
    """Drive a seat for so long after the first generated frame; return what was seen."""
    seen: dict[str, Any] = {"shown": [], "latencies": [], "model_fps": 0.0}
    pressed: dict[int, float] = {}
    next_key, number, keys = 0.0, 0, random.Random(0)
    with connect(address, max_size=None) as socket:
        socket.send(json.dumps({"type": "take", "seat": 0}))
        while not seen["shown"] or time.monotonic() - seen["shown"][0] < seconds:
            message = socket.recv()
            if not isinstance(message, bytes):
                continue
            now, header = time.monotonic(), json.loads(message.split(b"\n", 1)[0])
            socket.send(json.dumps({"type": "seen"}))
            if header["number"] > 0:
                seen["shown"].append(now)
                seen["model_fps"] = header["model_fps"]
            answered = pressed.pop(header["cars"][0]["answers"], None)
            seen["latencies"] += [now - answered] if answered else []
            if now >= next_key:
                number, next_key = number + 1, now + keys.uniform(*KEY_S)
                control = {"throttle": keys.choice([-1, 0, 1]), "steering": keys.choice([-1, 0, 1])}
                pressed[number] = now
                socket.send(json.dumps({"type": "drive", "seat": 0, "number": number} | control))
    return seen


def assignment(change: str) -> tuple[str, Any]:
    """Return key and value of KEY=VALUE: the value as JSON, else as text."""
    key, value = change.split("=", 1)
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--preset", default="demo")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the preset")
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--chunk", type=int, default=0)
    options.add_argument("--seconds", type=float, default=20.0)
    given = options.parse_args()
    model = random_model(Preset.load(given.preset).replace(**dict(map(assignment, given.set))), given.steps)
    scenes = {name: read_scene(name) for name in scene_names()}
    with tempfile.TemporaryDirectory() as folder:
        session = Session(model, scenes, next(iter(scenes)), Path(folder), given.chunk)
        listener = open_port(0)
        listener.listen()
        truth = Truth(session, Path(folder))
        server = build_server(Play(session, truth, {}, "token"), listener)
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        serving.start()
        session.begin()
        seen = drive(f"ws://127.0.0.1:{listener.getsockname()[1]}/socket?token=token", given.seconds)
        server.should_exit = True
        serving.join()
        truth.end()
        session.end()
    shown = (len(seen["shown"]) - 1) / (seen["shown"][-1] - seen["shown"][0])
    parameters = sum(weight.numel() for weight in model.pipeline.transformer.parameters())
    print(
        f"{parameters / 1e6:.1f} M parameters, mosaics of {model.width}x{model.height}, {model.steps} steps per "
        f"{session.chunk} frames, {torch.get_num_threads()} threads on {model.device}: {shown:.1f} frames/s shown "
        f"({shown * FRAME_S:.0%} of the world's {1 / FRAME_S:.0f}), model alone {seen['model_fps']:.1f}"
    )
    if seen["latencies"]:
        latencies = np.array(seen["latencies"])
        print(
            f"key to picture: median {np.median(latencies):.2f} s, at most {latencies.max():.2f} s, "
            f"{len(latencies)} keys"
        )


if __name__ == "__main__":
    main()
