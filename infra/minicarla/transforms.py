"""CARLA's transforms: left-handed (x forward, y right, z up), degrees, `carla.Transform.get_matrix()`'s convention."""

from __future__ import annotations

import math
from collections.abc import Sequence

from infra.minicarla.scenery import Pose

Matrix = Sequence[Sequence[float]]


def rotation(pitch: float, yaw: float, roll: float) -> Matrix:
    """Return the 3x3 rotation of a CARLA rotation in degrees."""
    cp, sp = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
    cy, sy = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    cr, sr = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    return (
        (cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr),
        (cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr),
        (sp, -cp * sr, cp * cr),
    )


def angles(matrix: Matrix) -> tuple[float, float, float]:
    """Return pitch, yaw, roll in degrees, yaw in [-180, 180]."""
    pitch = math.degrees(math.asin(max(-1.0, min(1.0, matrix[2][0]))))
    if abs(matrix[2][0]) < 0.9999999:
        yaw = math.degrees(math.atan2(matrix[1][0], matrix[0][0]))
        return pitch, yaw, math.degrees(math.atan2(-matrix[2][1], matrix[2][2]))
    return pitch, math.degrees(math.atan2(-matrix[0][1], matrix[1][1])), 0.0


def compose(parent: Pose, child: Pose) -> Pose:
    """Return the world pose of `child`, given relative to `parent`."""
    p, c = rotation(*parent[3:]), rotation(*child[3:])
    x, y, z = (parent[i] + sum(p[i][k] * child[k] for k in range(3)) for i in range(3))
    rows = [[sum(p[i][k] * c[k][j] for k in range(3)) for j in range(3)] for i in range(3)]
    return (x, y, z, *angles(rows))
