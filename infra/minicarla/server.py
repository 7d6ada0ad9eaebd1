"""The embedded CARLA server: the RPCs of 0.9.16 that recording needs, over one world."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Annotated

from infra.minicarla.protocol.arguments import (
    ActorDescription,
    EpisodeSettings,
    Flag,
    Id,
    Ids,
    Ignored,
    Layers,
    LightState,
    Location,
    Name,
    OpenDrive,
    OpenDriveParameters,
    Transform,
    Velocity,
    WeatherParameters,
    anything,
    list_of,
)
from infra.minicarla.protocol.errors import RpcError
from infra.minicarla.protocol.listening import listen
from infra.minicarla.protocol.rpc import RpcServer, caller, method
from infra.minicarla.protocol.streams import StreamServer
from infra.minicarla.protocol.wire import VERSION, WORLD_STREAM, token
from infra.minicarla.scenery import Town, Weather
from infra.minicarla.without_effect import ABSENT, WithoutEffect
from infra.minicarla.world import effects
from infra.minicarla.world.commands import MAX_COMMANDS, apply_batch
from infra.minicarla.world.episode import World, WorldSettings
from infra.minicarla.world.scenes import Build

log = logging.getLogger(__name__)

UPLOADED = "OpenDriveMap"
"""CARLA's name for the map of `generate_opendrive_world`."""


@dataclasses.dataclass(frozen=True)
class Towns:
    """The source of a server's towns. All functions raise ValueError with one sentence."""

    names: Callable[[], list[str]]
    load: Callable[[str], Town]
    from_opendrive: Callable[[str, str], Town]
    build_renderer: Callable[[Town], Build]
    """Returns at once: the work is done by the build's `result`."""


class Api(WithoutEffect):
    """Every marked method is the RPC of its name; its arguments are checked by their annotations."""

    def __init__(self, world: World, towns: Towns) -> None:
        self.world, self.towns = world, towns
        self.uploaded: Town | None = None

    # -- episode ----------------------------------------------------------------------------------------------------

    @method
    def version(self):
        return VERSION

    @method
    def get_available_maps(self):
        return [f"/Game/Carla/Maps/{name}" for name in self.towns.names()]

    @method(void=True)
    def load_new_episode(self, name: Name, reset_settings: Flag = True, layers: Layers = 0):
        short = name.split("/")[-1] or self.world.town.name
        if short == UPLOADED and self.uploaded is not None:
            town = self.uploaded
        elif short == self.world.town.name:
            town = self.world.town
        else:
            town = self.town_or_error(lambda: self.towns.load(short))
        self.world.begin_episode(town, reset_settings=reset_settings)
        self.world.streams.fall_silent()

    @method(void=True)
    def copy_opendrive_to_file(self, opendrive: OpenDrive, parameters: OpenDriveParameters):
        self.uploaded = self.town_or_error(lambda: self.towns.from_opendrive(UPLOADED, opendrive))

    def town_or_error(self, load: Callable[[], Town]) -> Town:
        """Load a town, which can take seconds, with the lock released. RpcError for a ValueError."""
        try:
            return self.world.with_lock_released(load)
        except ValueError as error:
            raise RpcError(str(error)) from error

    @method
    def get_episode_info(self):
        return [self.world.episode, [token(WORLD_STREAM, self.world.streams.port)]]

    @method
    def get_episode_settings(self):
        return self.world.settings.wire

    @method
    def set_episode_settings(self, settings: EpisodeSettings):
        self.world.settings = WorldSettings(settings)
        return self.world.frame

    @method
    def get_map_info(self):
        return [
            f"Carla/Maps/{self.world.town.name}",
            [[list(pose[:3]), list(pose[3:])] for pose in self.world.town.spawn_points],
        ]

    @method
    def get_map_data(self):
        return self.world.town.opendrive

    @method
    def get_required_files(self, folder: Name = ""):
        return []

    @method
    def request_file(self, name: Name):
        raise RpcError(f"there is no file {name!r}: get_required_files lists those that are")

    @method
    def get_weather_parameters(self):
        return list(dataclasses.astuple(self.world.weather))

    @method(void=True)
    def set_weather_parameters(self, weather: WeatherParameters):
        self.world.weather = Weather(*weather)

    # -- time and streams -------------------------------------------------------------------------------------------

    def await_readers(self):
        """Wait for the readers of the client that ticks; nobody else does."""
        if self.world.settings.synchronous:
            self.world.streams.await_readers(caller())

    @method(before="await_readers")
    def tick_cue(self):
        if not self.world.settings.synchronous:
            return self.world.frame + 1
        return self.world.tick()

    @method
    def get_sensor_token(self, stream: Id):
        if not self.world.has_stream(stream):
            raise RpcError(f"there is no stream {stream}: its sensor was destroyed or never spawned")
        self.world.streams.expect(stream, caller())
        return [token(stream, self.world.streams.port)]

    # -- actors -----------------------------------------------------------------------------------------------------

    @method
    def get_actor_definitions(self):
        return list(self.world.definitions.values())

    @method
    def get_spectator(self):
        return self.world.spectator.on_wire()

    @method
    def get_actors_by_id(self, ids: Ids):
        return [self.world.actors[actor].on_wire() for actor in dict.fromkeys(ids) if actor in self.world.actors]

    @method
    def spawn_actor(self, description: ActorDescription, transform: Transform):
        return self.world.spawn(description, transform).on_wire()

    @method
    def spawn_actor_with_parent(
        self,
        description: ActorDescription,
        transform: Transform,
        parent: Id,
        attachment: Ignored = 0,
        socket: Ignored = "",
    ):
        return self.world.spawn(description, transform, self.world.find(parent)).on_wire()

    @method
    def destroy_actor(self, actor: Id):
        self.world.destroy(actor)
        return True

    @method(raw=True)
    def apply_batch(self, commands: Annotated[list, list_of(anything, MAX_COMMANDS)], tick: Flag = False):
        answers = apply_batch(self.world, commands)
        if tick and self.world.settings.synchronous:
            self.world.tick()
        return answers

    @method(void=True)
    def set_actor_transform(self, actor: Id, transform: Transform):
        self.world.teleport(self.world.find(actor), transform)

    @method(void=True)
    def set_actor_location(self, actor: Id, location: Location):
        self.world.move_to(self.world.find(actor), location)

    @method(void=True)
    def set_actor_target_velocity(self, actor: Id, velocity: Velocity):
        effects.set_velocity(self.world.find(actor), velocity)

    @method(void=True)
    def set_actor_simulate_physics(self, actor: Id, enabled: Flag):
        effects.set_physics(self.world.find(actor), enabled)

    @method
    def get_actor_bounding_box(self, actor: Id):
        return self.world.find(actor).bounding_box()

    @method(void=True)
    def set_vehicle_light_state(self, actor: Id, state: LightState):
        effects.set_lights(self.world.find(actor), state[0])


class Server:
    """RPC on `port`, streams on `streaming_port` (the next one unless given), both on 127.0.0.1."""

    def __init__(self, port: int, towns: Towns, *, streaming_port: int | None = None, town: str = "") -> None:
        self.lock = threading.RLock()
        listener = listen(port)
        self.streams = StreamServer(streaming_port or port + 1)
        self.world = World(towns.load(town or towns.names()[0]), towns.build_renderer, self.streams, self.lock)
        self.rpc = RpcServer(listener, Api(self.world, towns), self.lock, ABSENT)
        self.stopping = threading.Event()

    def start(self) -> None:
        """Serve in background threads."""
        for target in (self.rpc.serve, self.streams.serve, self.free_run):
            threading.Thread(target=target, daemon=True).start()

    def free_run(self) -> None:
        """Tick by itself in asynchronous mode, no faster than the wall clock."""
        while not self.stopping.wait(min(self.world.settings.step_s, 0.05)):
            try:
                with self.lock:
                    if not self.world.settings.synchronous and not self.world.streams.silent():
                        self.world.tick()
            except Exception:
                log.exception("a tick of the free-running world failed")

    def stop(self) -> None:
        self.stopping.set()
        self.rpc.stop()
        self.streams.stop()
