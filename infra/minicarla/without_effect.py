"""RPCs about what the embedded CARLA does not have: granted where what they ask for holds anyway, else refused."""

from __future__ import annotations

from infra.minicarla.protocol.arguments import (
    AngularVelocity,
    Byte,
    Flag,
    Id,
    Ignored,
    Layers,
    Location,
    Name,
    Port,
    VehicleControl,
    Velocity,
)
from infra.minicarla.protocol.errors import RpcError
from infra.minicarla.protocol.rpc import method
from infra.minicarla.scenery import Label
from infra.minicarla.world import effects
from infra.minicarla.world.episode import World

ALL_LABELS = 255
USE_CARLA = "use a CARLA server for it"


class WithoutEffect:
    """The part of the Api that changes nothing."""

    world: World

    @method(void=True)
    def apply_control_to_vehicle(self, actor: Id, control: VehicleControl):
        effects.apply_control(self.world.find(actor), control)

    @method(void=True)
    def set_actor_target_angular_velocity(self, actor: Id, velocity: AngularVelocity):
        effects.set_angular_velocity(self.world.find(actor), velocity)

    @method(void=True)
    def set_actor_collisions(self, actor: Id, enabled: Flag):
        effects.set_collisions(self.world.find(actor), enabled)

    @method(void=True)
    def set_actor_enable_gravity(self, actor: Id, enabled: Flag):
        effects.set_gravity(self.world.find(actor), enabled)

    @method(void=True)
    def set_actor_autopilot(self, actor: Id, enabled: Flag):
        effects.set_autopilot(self.world.find(actor), enabled)

    @method(void=True)
    def disable_actor_constant_velocity(self, actor: Id):
        self.world.find(actor)

    @method(void=True)
    def enable_actor_constant_velocity(self, actor: Id, velocity: Velocity):
        self.world.find(actor)
        raise RpcError(f"constant velocity in the car's own frame is not there: {effects.MOVE_IT}")

    @method(void=True)
    def add_actor_impulse(self, actor: Id, impulse: Location):
        effects.push(self.world.find(actor), impulse)

    @method(void=True)
    def add_actor_force(self, actor: Id, force: Location):
        effects.push(self.world.find(actor), force)

    @method(void=True)
    def add_actor_angular_impulse(self, actor: Id, impulse: Location):
        effects.push(self.world.find(actor), impulse)

    @method(void=True)
    def add_actor_torque(self, actor: Id, torque: Location):
        effects.push(self.world.find(actor), torque)

    @method(void=True)
    def apply_physics_control(self, actor: Id, control: Ignored):
        effects.vehicle(self.world.find(actor))
        raise RpcError(f"physics parameters have no effect: {effects.MOVE_IT}")

    @method
    def get_physics_control(self, actor: Id):
        """A typical car's."""
        x, y, z = effects.vehicle(self.world.find(actor)).pose[:3]
        wheel = [3.5, 0.25, 70.0, 35.0, 1500.0, 3000.0, 2.0, 17.0, 1000.0]
        places = [(1.2, -0.8), (1.2, 0.8), (-1.2, -0.8), (-1.2, 0.8)]
        wheels = [[*wheel, [100 * (x + dx), 100 * (y + dy), 100 * z]] for dx, dy in places]
        torque, steering = [[0.0, 500.0], [5000.0, 500.0]], [[0.0, 1.0], [120.0, 0.5]]
        engine = [torque, 5800.0, 1.0, 0.15, 2.0, 0.35, True, 0.5, 10.0, 4.0, [[4.0, 0.5, 0.65]]]
        return [*engine, 1500.0, 0.3, [0.0, 0.0, 0.0], steering, wheels, False]

    @method
    def get_vehicle_light_state(self, actor: Id):
        effects.vehicle(self.world.find(actor))
        return [0]

    @method
    def get_vehicle_light_states(self):
        return [[actor.id, 0] for actor in self.world.actors.values() if actor.is_vehicle]

    @method(void=True)
    def draw_debug_shape(self, shape: Ignored):
        raise RpcError("debug shapes are not drawn by the embedded CARLA: draw into the images instead")

    @method(void=True)
    def load_map_layer(self, layer: Layers):
        """All layers are always there."""

    @method(void=True)
    def unload_map_layer(self, layer: Layers):
        if layer:
            raise RpcError("towns of the embedded CARLA have no layers: they are shown whole")

    @method
    def get_environment_objects(self, label: Byte):
        return nothing_of(label)

    @method
    def get_all_level_BBs(self, label: Byte):
        return nothing_of(label)

    @method
    def query_lights_state(self, client: Name):
        return []

    @method(void=True)
    def update_lights_state(self, client: Name, lights: Ignored, discard: Ignored = False):
        if lights:
            raise RpcError("towns of the embedded CARLA have no lights that could be switched")

    @method(void=True)
    def reset_all_traffic_lights(self):
        """There are none."""

    @method(void=True)
    def freeze_all_traffic_lights(self, frozen: Flag):
        """There are none."""

    @method
    def is_traffic_manager_running(self, port: Port):
        return False

    @method
    def get_traffic_manager_running(self, port: Port):
        return ["", 0]

    @method
    def add_traffic_manager_running(self, address: Ignored):
        """A client's traffic manager lives in the client; no other client is told of it."""
        return True

    @method
    def destroy_traffic_manager(self, port: Port):
        return True


def nothing_of(label: int) -> list:
    """Return no objects for a label that towns never show; RpcError for one they do, for their objects have no list."""
    if label == ALL_LABELS or label in Label._value2member_map_:
        raise RpcError(f"objects of label {label} are part of the scenery, of which there is no list: {USE_CARLA}")
    return []


_MISSING = {
    "walkers": (
        "apply_control_to_walker", "get_bones_transform", "set_bones_transform", "blend_pose",
        "get_pose_from_animation", "set_actor_dead", "get_navigation_mesh",
    ),
    "recorder": (
        "start_recorder", "stop_recorder", "show_recorder_file_info", "show_recorder_collisions",
        "show_recorder_actors_blocked", "replay_file", "stop_replayer", "set_replayer_time_factor",
        "set_replayer_ignore_hero", "set_replayer_ignore_spectator",
    ),
    "vehicle physics": (
        "apply_ackermann_control_to_vehicle", "apply_ackermann_controller_settings",
        "get_ackermann_controller_settings",
        "show_vehicle_debug_telemetry", "get_telemetry_data", "open_vehicle_door", "close_vehicle_door",
        "set_wheel_steer_direction", "get_wheel_steer_angle", "set_wheel_pitch_angle", "get_wheel_pitch_angle",
        "add_actor_impulse_at_location", "add_actor_force_at_location", "enable_carsim", "use_carsim_road",
        "enable_chrono_physics", "restore_physx_physics", "get_imui_gravity", "set_imui_gravity",
    ),
    "skeletons and components": (
        "get_actor_component_names", "get_actor_bone_names", "get_actor_socket_names",
        "get_actor_component_world_transform", "get_actor_component_relative_transform",
        "get_actor_bone_world_transforms", "get_actor_bone_relative_transforms", "get_vehicle_bone_world_transforms",
        "get_actor_socket_world_transforms", "get_actor_socket_relative_transforms",
    ),
    "traffic lights": (
        "set_traffic_light_state", "set_traffic_light_green_time", "set_traffic_light_yellow_time",
        "set_traffic_light_red_time", "freeze_traffic_light", "reset_traffic_light_group", "get_group_traffic_lights",
        "get_light_boxes",
    ),
    "ray casts": ("cast_ray", "project_point", "set_annotations_traverse_translucency"),
    "exchange of textures": (
        "apply_color_texture_to_objects", "apply_float_color_texture_to_objects", "get_names_of_all_objects",
        "enable_environment_objects", "update_day_night_cycle",
    ),
    "ROS": ("enable_sensor_for_ros", "disable_sensor_for_ros", "is_sensor_enabled_for_ros"),
    "G-buffers": ("are_gbuffers_enabled", "get_gbuffer_token", "enable_gbuffers"),
    "debug shapes": ("clear_debug_shape", "clear_debug_string"),
}  # fmt: skip
"""Functions of CARLA 0.9.16 that are not served, by what they belong to."""

ABSENT = {
    name: f"{name}: the embedded CARLA has no {thing}: {USE_CARLA}"
    for thing, names in _MISSING.items()
    for name in names
}
"""Function -> the sentence that its caller gets."""
