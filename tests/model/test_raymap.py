"""Raymaps against the paper's recipe, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.camera import MOUNTS, VIEWS, carla_to_c2w, intrinsics
from model.raymap import align, build_raymaps, pack_time


def cameras(frames=9, width=48, height=32, seed=0):
    """Two cars on random ways: K [2, 4, 3, 3], c2w [2, 4, T, 4, 4]."""
    rng = np.random.default_rng(seed)
    car = np.zeros((2, 1, frames, 6))
    car[..., :2] = rng.normal(0, 20, (2, 1, 1, 2)) + np.cumsum(rng.normal(1, 0.3, (2, 1, frames, 2)), 2)
    car[..., 4] = rng.uniform(-180, 180, (2, 1, 1)) + np.linspace(0, 30, frames)
    mount = carla_to_c2w(np.zeros(6)).T @ np.array([carla_to_c2w(np.array(MOUNTS[v])) for v in VIEWS])
    c2w = carla_to_c2w(car) @ mount[None, :, None]
    K = np.broadcast_to(intrinsics(width, height, 90), (2, 4, 3, 3))
    return torch.tensor(np.array(K)), torch.tensor(c2w)


def by_the_paper(K, c2w):
    """Section 4.2 literally: one ray per pixel, centroid, 1/8 bilinear, views joined, frame 0 repeated, fours."""
    agents, views, frames = c2w.shape[:3]
    width, height = round(float(2 * K[0, 0, 0, 2])), round(float(2 * K[0, 0, 1, 2]))
    middle = c2w[..., :3, 3].mean((0, 1, 2))
    rows = []
    for agent in range(agents):
        moments = []
        for frame in range(frames):
            small = []
            for view in range(views):
                rays = torch.zeros(6, height, width, dtype=torch.float64)
                for y in range(height):
                    for x in range(width):
                        pixel = torch.tensor([x + 0.5, y + 0.5, 1.0], dtype=torch.float64)
                        local = torch.linalg.inv(K[agent, view]) @ pixel
                        assert abs(float(local[2]) - 1) < 1e-12
                        rays[:3, y, x] = c2w[agent, view, frame, :3, :3] @ local
                rays[3:] = (c2w[agent, view, frame, :3, 3] - middle)[:, None, None]
                small.append(F.interpolate(rays[None], scale_factor=1 / 8, mode="bilinear", align_corners=False)[0])
            top, bottom = torch.cat(small[:2], -1), torch.cat(small[2:], -1)
            moments.append(torch.cat([top, bottom], -2))
        groups = [[moments[0]] * 4] + [moments[k : k + 4] for k in range(1, frames, 4)]
        rows.append(torch.stack([torch.cat(group) for group in groups]))
    return torch.stack(rows)


def test_equals_the_direct_computation_a_pixel():
    K, c2w = cameras(frames=5)
    built = build_raymaps(K, c2w, height=64, width=96)
    assert built.shape == (2, 2, 24, 8, 12)
    torch.testing.assert_close(built, by_the_paper(K, c2w).float(), atol=1e-5, rtol=0)


def test_a_smaller_video_of_the_same_cameras_has_the_same_field_of_view():
    K, c2w = cameras(width=96, height=64)
    K_small, _ = cameras(width=48, height=32)
    torch.testing.assert_close(
        build_raymaps(K, c2w, height=64, width=96), build_raymaps(K_small, c2w, height=64, width=96)
    )


def test_paper_scale_has_13_latent_frames_of_60_x_90():
    K, c2w = cameras(frames=49, width=360, height=240)
    assert build_raymaps(K, c2w, height=480, width=720).shape == (2, 13, 24, 60, 90)


def test_centroid_and_translation_are_common():
    K, c2w = cameras()
    moved = c2w.clone()
    moved[..., :3, 3] += torch.tensor([100.0, -50.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(
        build_raymaps(K, c2w, height=64, width=96), build_raymaps(K, moved, height=64, width=96), atol=1e-4, rtol=0
    )
    shift = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    difference = build_raymaps(K, c2w, height=64, width=96, translation=shift) - build_raymaps(
        K, c2w, height=64, width=96
    )
    rows = difference.unflatten(2, (4, 6))
    assert rows[:, :, :, :3].abs().max() < 1e-6
    torch.testing.assert_close(
        rows[:, :, :, 3:].movedim(3, -1), shift.float().expand(2, 3, 4, 8, 12, 3), atol=1e-4, rtol=0
    )


def test_first_frame_centroid_hides_the_partners_future():
    K, c2w = cameras()
    later = c2w.clone()
    later[1, :, 1:, :3, 3] += 5
    own = [build_raymaps(K, c, height=64, width=96, centroid_frames="first")[0] for c in (c2w, later)]
    paper = [build_raymaps(K, c, height=64, width=96)[0] for c in (c2w, later)]
    assert torch.equal(*own)
    assert not torch.equal(*paper)  # trap 41: future leaks


def test_axes_of_agent0_do_not_depend_on_the_maps():
    K, c2w = cameras()
    angle = torch.tensor(0.7, dtype=torch.float64)
    turn = torch.eye(4, dtype=torch.float64)
    turn[0, 0] = turn[1, 1] = torch.cos(angle)
    turn[0, 1], turn[1, 0] = -torch.sin(angle), torch.sin(angle)
    own = [build_raymaps(K, c, height=64, width=96, axes="agent0") for c in (c2w, turn @ c2w)]
    torch.testing.assert_close(*own, atol=1e-5, rtol=0)
    maps = [build_raymaps(K, c, height=64, width=96) for c in (c2w, turn @ c2w)]
    assert (maps[0] - maps[1]).abs().max() > 0.1
    forward = align(c2w, c2w[0, 0, 0])[0, 0, 0, :3, 2]
    assert abs(float(forward[1])) < 1e-9
    assert float(forward[0]) > 0


def test_own_axes_say_how_an_agent_moves_and_nothing_about_where():
    K, c2w = cameras()
    drive = c2w[:1].repeat(2, 1, 1, 1, 1)
    yaw = np.radians(70.0)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    turn[:3, 3] = torch.tensor([40.0, -9.0, 2.0])
    drive[1] = turn @ drive[1]  # the same drive elsewhere, in another direction
    own = build_raymaps(K, drive, height=64, width=96, axes="own")
    torch.testing.assert_close(own[0], own[1], atol=1e-5, rtol=0)
    assert own[0, 0, 3::6].abs().max() < 1  # the cameras' places on their car, in metres
    start_of_front = own[0, 0, :3, :4, :6].mean((1, 2))
    torch.testing.assert_close(start_of_front, torch.tensor([1.0, 0.0, 0.0]), atol=1e-5, rtol=0)
    other = build_raymaps(K, torch.stack([c2w[0], c2w[1]]), height=64, width=96, axes="own")
    torch.testing.assert_close(other[0], own[0])  # whatever the other agent does


def test_pair_axes_add_the_rays_in_agent_0s_axes():
    K, c2w = cameras()
    both = build_raymaps(K, c2w, height=64, width=96, axes="own", pair_axes=True)
    assert both.shape[-3] == 48
    for part, axes in ((both[..., :24, :, :], "own"), (both[..., 24:, :, :], "agent0")):
        assert torch.equal(part, build_raymaps(K, c2w, height=64, width=96, axes=axes))


def test_frame_zero_is_repeated_then_fours():
    packed = pack_time(torch.arange(9.0).view(9, 1, 1, 1).expand(9, 6, 1, 1))
    assert packed[:, ::6, 0, 0].tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    with pytest.raises(ValueError, match="4k\\+1 frames, not 8"):
        pack_time(torch.zeros(8, 6, 1, 1))


def test_raw_values_are_constant_over_a_view():
    K, c2w = cameras()
    raw = build_raymaps(K, c2w, height=64, width=96, camera="raw")
    front = raw[..., :4, :6]
    assert torch.equal(front, front[..., :1, :1].expand_as(front))
    assert not torch.equal(raw[..., 0, 0], raw[..., 0, 11])
