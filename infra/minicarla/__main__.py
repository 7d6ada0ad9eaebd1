"""`python -m infra.minicarla -carla-rpc-port=N`: the embedded CARLA server, with CARLA's options."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.minicarla import towns
from infra.minicarla.protocol.errors import RpcError
from infra.minicarla.protocol.wire import VERSION
from infra.minicarla.scenery import Town
from infra.minicarla.server import Server, Towns
from infra.minicarla.world.scenes import Renders

log = logging.getLogger("infra.minicarla")

THREAD_SWITCH_S = 0.0005
"""Python's thread switch interval: short, so that calls are answered while another thread computes."""


def option_parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m infra.minicarla", description=__doc__, allow_abbrev=False)
    options.add_argument("-carla-rpc-port", type=int, default=2000, metavar="N", help="port of the RPCs (2000)")
    options.add_argument("-carla-streaming-port", type=int, metavar="N", help="port of the images (the next one)")
    options.add_argument("--maps", metavar="DIR", help="every DIR/*.xodr is a town too")
    options.add_argument("--town", default="", metavar="NAME", help="town of the first episode (Mini01)")
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads that render")
    ignored = options.add_argument_group("accepted as CARLA does, without effect")
    ignored.add_argument("-RenderOffScreen", action="store_true")
    ignored.add_argument("-nosound", action="store_true")
    ignored.add_argument("-quality-level", default="Epic")
    ignored.add_argument("-graphicsadapter", type=int, default=0)
    return options


def check_options(options: argparse.Namespace) -> None:
    """Raise ValueError for options that cannot work."""
    streaming = options.carla_streaming_port or options.carla_rpc_port + 1
    for name, port in (("-carla-rpc-port", options.carla_rpc_port), ("-carla-streaming-port", streaming)):
        if not 1 <= port <= 65535:
            raise ValueError(f"{name}={port} is no port: choose one from 1 to 65534.")
    if options.threads < 1:
        raise ValueError(f"--threads {options.threads}: the renderer needs at least one.")
    if options.maps is not None:
        check_maps(Path(options.maps))


def check_maps(folder: Path) -> None:
    """Raise ValueError for a folder without maps. The maps themselves are read when a client asks for them."""
    if not folder.is_dir():
        raise ValueError(f"--maps {folder}: there is no such folder; give one that holds .xodr files.")
    try:
        list(os.scandir(folder))
    except OSError as error:
        raise ValueError(f"--maps {folder}: the folder cannot be read ({error.strerror}); give another one.") from error
    files, left_out = towns.map_files(folder)
    for sentence in left_out:
        log.warning("--maps: %s", sentence)
    if not files:
        raise ValueError(f"--maps {folder}: the folder holds no .xodr file that can be a town.")


class RendererBuild:
    """Builds a town's renderer: the scenery in a process of its own, while this one compiles the renderer's code."""

    def __init__(self, town: Town, threads: int) -> None:
        self.job, self.threads = towns.SceneryJob(town), threads

    def result(self) -> Renders:
        with ThreadPoolExecutor(1) as pool:
            scenery = pool.submit(self.job.scenery)
            from infra.minicarla.render import Renderer, warm_up  # numba compiles: only when a camera asks

            warm_up()
            return Renderer(scenery.result(), self.threads)

    def cancel(self) -> None:
        self.job.cancel()


def embedded_towns(maps_dir: str | None, threads: int) -> Towns:
    """Return the twelve Mini towns and those of `maps_dir`, drawn by the ray caster."""
    library = towns.TownLibrary(maps_dir)
    return Towns(library.names, library.load, library.from_opendrive, lambda town: RendererBuild(town, threads))


def main() -> int:
    options = option_parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    sys.setswitchinterval(THREAD_SWITCH_S)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # a mask would not do: numpy's threads are older than it
        signal.signal(number, lambda *_: stop.set())
    try:
        check_options(options)
        server = Server(
            options.carla_rpc_port,
            embedded_towns(options.maps, options.threads),
            streaming_port=options.carla_streaming_port,
            town=options.town,
        )
    except (RpcError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    server.start()
    print(f"embedded CARLA {VERSION} on 127.0.0.1:{options.carla_rpc_port}, pid {os.getpid()}", flush=True)
    stop.wait()
    server.stop()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # daemon threads may be inside a client's socket; nothing is left to save
