"""The embedded CARLA server: the RPCs of 0.9.16 that recording needs, over one world."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable

from infra.minicarla.protocol.rpc import RpcError, RpcServer, listen, method
from infra.minicarla.protocol.streams import StreamServer
from infra.minicarla.protocol.wire import VERSION, WORLD_STREAM, token
from infra.minicarla.scenery import Town, Weather
from infra.minicarla.world.commands import apply_batch, pose_of
from infra.minicarla.world.episode import Settings, World
from infra.minicarla.world.scenes import Build

UPLOADED = "OpenDriveMap"
"""CARLA's name for the map of `generate_opendrive_world`."""


@dataclasses.dataclass(frozen=True)
class Towns:
    """Where the server's towns come from. All functions raise ValueError with one sentence."""

    names: Callable[[], list[str]]
    load: Callable[[str], Town]
    from_opendrive: Callable[[str, str], Town]
    build_renderer: Callable[[Town], Build]
    """Returns at once; the build does the work."""


class Api:
    """Every marked method is an RPC of that name (CARLA_PROTOCOL section 7); arguments as on the wire."""

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
    def load_new_episode(self, name, reset_settings=True, layers=0):
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
    def copy_opendrive_to_file(self, opendrive, parameters=None):
        self.uploaded = self.town_or_error(lambda: self.towns.from_opendrive(UPLOADED, opendrive))

    def town_or_error(self, load: Callable[[], Town]) -> Town:
        """Load a town, which can take seconds, with the lock released; the client's RuntimeError for a ValueError."""
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
    def set_episode_settings(self, settings):
        self.world.settings = Settings(settings)
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
    def get_required_files(self, folder=""):
        return []

    @method
    def request_file(self, name):
        raise RpcError(f"file not found: {name}")

    @method
    def get_weather_parameters(self):
        return list(dataclasses.astuple(self.world.weather))

    @method(void=True)
    def set_weather_parameters(self, weather):
        given = Weather(*map(float, weather))
        if not all(map(math.isfinite, dataclasses.astuple(given))):
            raise RpcError(f"weather {weather} holds a number that is not finite: give percent and degrees")
        self.world.weather = given

    # -- time and streams -------------------------------------------------------------------------------------------

    @method
    def tick_cue(self):
        if not self.world.settings.synchronous:
            return self.world.frame + 1
        self.world.streams.await_expected()
        return self.world.tick()

    @method
    def get_sensor_token(self, stream):
        self.world.streams.expect(stream)
        return [token(stream, self.world.streams.port)]

    # -- actors -----------------------------------------------------------------------------------------------------

    @method
    def get_actor_definitions(self):
        return list(self.world.definitions.values())

    @method
    def get_spectator(self):
        return self.world.spectator.on_wire()

    @method
    def get_actors_by_id(self, ids):
        return [self.world.actors[actor].on_wire() for actor in ids if actor in self.world.actors]

    @method
    def spawn_actor(self, description, transform):
        return self.world.spawn(description, pose_of(transform)).on_wire()

    @method
    def spawn_actor_with_parent(self, description, transform, parent, attachment=0, socket=""):
        return self.world.spawn(description, pose_of(transform), parent).on_wire()

    @method
    def destroy_actor(self, actor):
        self.world.destroy(actor)
        return True

    @method(raw=True)
    def apply_batch(self, commands, tick=False):
        answers = apply_batch(self.world, commands)
        if tick and self.world.settings.synchronous:
            self.world.tick()
        return answers

    @method(void=True)
    def set_actor_transform(self, actor, transform):
        self.world.place(self.world.find(actor), pose_of(transform))

    @method(void=True)
    def set_actor_location(self, actor, location):
        target = self.world.find(actor)
        x, y, z = map(float, location)
        self.world.place(target, (x, y, z, *target.pose[3:]))

    @method(void=True)
    def set_actor_target_velocity(self, actor, velocity):
        self.world.find(actor).velocity = tuple(velocity)

    @method(void=True)
    def set_actor_target_angular_velocity(self, actor, velocity):
        self.world.find(actor).angular_velocity = tuple(velocity)

    @method(void=True)
    def set_actor_simulate_physics(self, actor, enabled):
        self.world.find(actor).physics = bool(enabled)

    @method(void=True)
    def apply_control_to_vehicle(self, actor, control):
        self.world.find(actor).control = tuple(control)

    @method
    def get_actor_bounding_box(self, actor):
        return self.world.find(actor).bounding_box()

    @method
    def get_vehicle_light_state(self, actor):
        return [self.world.find(actor).light_state]

    @method
    def get_vehicle_light_states(self):
        return [[actor.id, actor.light_state] for actor in self.world.actors.values() if actor.is_vehicle]

    @method(void=True)
    def set_vehicle_light_state(self, actor, state):
        self.world.find(actor).light_state = int(state[0])

    # -- taken without effect: kinematic cars have no engine, no gravity and no contacts ------------------------------

    @method(void=True)
    def set_actor_collisions(self, actor, enabled):
        self.world.find(actor)

    @method(void=True)
    def set_actor_enable_gravity(self, actor, enabled):
        self.world.find(actor)

    @method(void=True)
    def set_actor_autopilot(self, actor, enabled):
        self.world.find(actor)

    @method(void=True)
    def apply_physics_control(self, actor, control):
        self.world.find(actor)

    @method
    def get_physics_control(self, actor):
        x, y, z = self.world.find(actor).pose[:3]
        wheel = [3.5, 0.25, 70.0, 35.0, 1500.0, 3000.0, 2.0, 17.0, 1000.0]
        places = [(1.2, -0.8), (1.2, 0.8), (-1.2, -0.8), (-1.2, 0.8)]
        wheels = [[*wheel, [100 * (x + dx), 100 * (y + dy), 100 * z]] for dx, dy in places]
        torque, steering = [[0.0, 500.0], [5000.0, 500.0]], [[0.0, 1.0], [120.0, 0.5]]
        engine = [torque, 5800.0, 1.0, 0.15, 2.0, 0.35, True, 0.5, 10.0, 4.0, [[4.0, 0.5, 0.65]]]
        return [*engine, 1500.0, 0.3, [0.0, 0.0, 0.0], steering, wheels, False]

    @method(void=True)
    def draw_debug_shape(self, *shape):
        return None

    @method(void=True)
    def load_map_layer(self, layer):
        return None

    @method(void=True)
    def unload_map_layer(self, layer):
        return None

    # -- things the towns do not have ---------------------------------------------------------------------------------

    @method
    def get_environment_objects(self, label):
        return []

    @method
    def get_all_level_BBs(self, label):
        return []

    @method
    def query_lights_state(self, client):
        return []

    @method(void=True)
    def update_lights_state(self, *lights):
        return None

    @method(void=True)
    def reset_all_traffic_lights(self):
        return None

    @method(void=True)
    def freeze_all_traffic_lights(self, frozen):
        return None

    @method
    def is_traffic_manager_running(self, port):
        return False

    @method
    def get_traffic_manager_running(self, port):
        return ["", 0]

    @method
    def add_traffic_manager_running(self, address):
        return True

    @method
    def destroy_traffic_manager(self, port):
        return True


class Server:
    """RPC on `port`, streams on `streaming_port` (the next one unless given), both on 127.0.0.1."""

    def __init__(self, port: int, towns: Towns, *, streaming_port: int | None = None, town: str = "") -> None:
        self.lock = threading.RLock()
        listener = listen(port)
        self.streams = StreamServer(streaming_port or port + 1)
        self.world = World(towns.load(town or towns.names()[0]), towns.build_renderer, self.streams, self.lock)
        self.rpc = RpcServer(listener, Api(self.world, towns), self.lock)
        self.stopping = threading.Event()

    def start(self) -> None:
        """Serve in background threads."""
        for target in (self.rpc.serve, self.streams.serve, self.free_run):
            threading.Thread(target=target, daemon=True).start()

    def free_run(self) -> None:
        """In asynchronous mode the server ticks by itself, at most at the pace of the wall clock."""
        while not self.stopping.wait(min(self.world.settings.step_s, 0.05)):
            with self.lock:
                if not self.world.settings.synchronous and not self.world.streams.silent():
                    self.world.tick()

    def stop(self) -> None:
        self.stopping.set()
        self.rpc.listener.close()
        self.streams.listener.close()
