"""What a camera sees: everything projected and sorted into tiles once a view, then a short list to try a pixel."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from infra.minicarla.render.kernels import NOTHING, allocating, helper

TILE = 8
NEAR_M = 0.05
RAGGED = 0.5
BODY_COLUMNS = 23
"""x y z of the centre; 3x3 rotation row by row (columns: the body's axes); half sizes; shape; r g b; radius; id; tag;
gloss"""


class View(NamedTuple):
    """Tile lists of one camera, near things first."""

    start: np.ndarray
    """[tiles + 1]"""
    item: np.ndarray
    """box i, tree B + i, body B + T + i"""
    depth: np.ndarray
    """Least depth of each entry."""


@allocating
def prepare(box, tree, body, eye, axes, tan_x, width, height):
    """Return the View of a camera at `eye` [3] with `axes` [3, 3] (rows: right, up, forward)."""
    boxes, trees, bodies = box.shape[0], tree.shape[0], body.shape[0]
    count = boxes + trees + bodies
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    tan_y = tan_x * height / width
    tiles = np.zeros((count, 4), np.int64)
    nearest = np.full(count, 1e9)
    corner, half = np.zeros((8, 3)), np.zeros((3, 3))
    for i in range(count):
        if i < boxes:
            x, y, z = box[i, 0], box[i, 1], box[i, 2]
            radius = math.sqrt(box[i, 12] ** 2 + box[i, 5] ** 2)
        elif i < boxes + trees:
            k = i - boxes
            x, y, z, radius = tree[k, 0], tree[k, 1], tree[k, 2], tree[k, 3]
        else:
            k = i - boxes - trees
            x, y, z, radius = body[k, 0], body[k, 1], body[k, 2], body[k, 19]
        dx, dy, dz = x - eye[0], y - eye[1], z - eye[2]
        depth = dx * axes[2, 0] + dy * axes[2, 1] + dz * axes[2, 2]
        if depth < -radius or depth > 720.0 + radius:
            continue
        cx = dx * axes[0, 0] + dy * axes[0, 1] + dz * axes[0, 2]
        cy = dx * axes[1, 0] + dy * axes[1, 1] + dz * axes[1, 2]
        forward = max(depth, 0.0) + radius
        if abs(cx) > forward * tan_x + 1.5 * radius or abs(cy) > forward * tan_y + 1.5 * radius:
            continue
        left, right, bottom, top, least = 1e9, -1e9, 1e9, -1e9, 1e9
        if i < boxes or i >= boxes + trees:
            if i < boxes:
                b = box[i]
                half[0, 0], half[0, 1], half[0, 2] = b[6] * b[3], b[7] * b[3], 0.0
                half[1, 0], half[1, 1], half[1, 2] = -b[7] * b[4], b[6] * b[4], 0.0
                half[2, 0], half[2, 1], half[2, 2] = 0.0, 0.0, b[5]
            else:
                m = body[i - boxes - trees]
                for j in range(3):
                    for a in range(3):
                        half[j, a] = m[3 + 3 * a + j] * m[12 + j]
            for k in range(8):
                px, py, pz = 1.0 if k & 1 else -1.0, 1.0 if k & 2 else -1.0, 1.0 if k & 4 else -1.0
                wx = dx + half[0, 0] * px + half[1, 0] * py + half[2, 0] * pz
                wy = dy + half[0, 1] * px + half[1, 1] * py + half[2, 1] * pz
                wz = dz + half[0, 2] * px + half[1, 2] * py + half[2, 2] * pz
                for a in range(3):
                    corner[k, a] = wx * axes[a, 0] + wy * axes[a, 1] + wz * axes[a, 2]
                least = min(least, corner[k, 2])
            for k in range(8):
                if corner[k, 2] >= NEAR_M:
                    u, v = corner[k, 0] / corner[k, 2], corner[k, 1] / corner[k, 2]
                    left, right, bottom, top = min(left, u), max(right, u), min(bottom, v), max(top, v)
                for bit in (1, 2, 4):  # edges that pass behind the camera
                    j = k ^ bit
                    if corner[k, 2] >= NEAR_M and corner[j, 2] < NEAR_M:
                        f = (corner[k, 2] - NEAR_M) / (corner[k, 2] - corner[j, 2])
                        u = (corner[k, 0] + (corner[j, 0] - corner[k, 0]) * f) / NEAR_M
                        v = (corner[k, 1] + (corner[j, 1] - corner[k, 1]) * f) / NEAR_M
                        left, right, bottom, top = min(left, u), max(right, u), min(bottom, v), max(top, v)
        else:
            least = depth - radius
            if least > 0.3:
                near, far = 1 / least, 1 / (depth + radius)
                left, right = (
                    min((cx - radius) * near, (cx - radius) * far),
                    max((cx + radius) * near, (cx + radius) * far),
                )
                bottom, top = (
                    min((cy - radius) * near, (cy - radius) * far),
                    max((cy + radius) * near, (cy + radius) * far),
                )
            else:
                left, right, bottom, top = -9.0, 9.0, -9.0, 9.0
        if right < -tan_x or left > tan_x or top < -tan_y or bottom > tan_y:
            continue
        x0 = int((max(left, -tan_x) / tan_x + 1) * 0.5 * width - 0.5)
        x1 = int((min(right, tan_x) / tan_x + 1) * 0.5 * width + 1)
        y0 = int((1 - min(top, tan_y) / tan_y) * 0.5 * height - 0.5)
        y1 = int((1 - max(bottom, -tan_y) / tan_y) * 0.5 * height + 1)
        tiles[i, 0], tiles[i, 1] = max(x0, 0) // TILE, min(x1, width - 1) // TILE + 1
        tiles[i, 2], tiles[i, 3] = max(y0, 0) // TILE, min(y1, height - 1) // TILE + 1
        nearest[i] = max(least, 0.0)
    seen = np.nonzero(nearest < 1e8)[0]
    order = seen[np.argsort(nearest[seen], kind="mergesort")]
    start = np.zeros(across * down + 1, np.int64)
    for i in order:
        for ty in range(tiles[i, 2], tiles[i, 3]):
            for tx in range(tiles[i, 0], tiles[i, 1]):
                start[ty * across + tx + 1] += 1
    start = np.cumsum(start)
    place = start[:-1].copy()
    item, depths = np.zeros(start[-1], np.int64), np.zeros(start[-1])
    for i in order:
        for ty in range(tiles[i, 2], tiles[i, 3]):
            for tx in range(tiles[i, 0], tiles[i, 1]):
                k = place[ty * across + tx]
                item[k], depths[k] = i, nearest[i]
                place[ty * across + tx] = k + 1
    return View(start, item, depths)


@helper
def hit_mesh(w, shape, ox, oy, oz, dx, dy, dz, limit, any_hit):
    """Cast a ray in a body's own frame; return t, triangle or NOTHING, and its barycentric u, v."""
    best, hit, hit_u, hit_v = limit, NOTHING, 0.0, 0.0
    dx = dx if abs(dx) > 1e-12 else 1e-12
    dy = dy if abs(dy) > 1e-12 else 1e-12
    dz = dz if abs(dz) > 1e-12 else 1e-12
    ix, iy, iz = 1 / dx, 1 / dy, 1 / dz
    node, end = w.first[shape, 0], w.first[shape, 1]
    while node < end:
        q = w.bounds[node]
        a, b = (q[0] - ox) * ix, (q[3] - ox) * ix
        t0, t1 = min(a, b), max(a, b)
        a, b = (q[1] - oy) * iy, (q[4] - oy) * iy
        t0, t1 = max(t0, min(a, b)), min(t1, max(a, b))
        a, b = (q[2] - oz) * iz, (q[5] - oz) * iz
        t0, t1 = max(t0, min(a, b)), min(t1, max(a, b))
        if t0 > t1 or t1 < 1e-5 or t0 > best:
            node = w.links[node, 0]
            continue
        for k in range(w.links[node, 1], w.links[node, 1] + w.links[node, 2]):
            c = w.corners[k]
            e1x, e1y, e1z = c[3] - c[0], c[4] - c[1], c[5] - c[2]
            e2x, e2y, e2z = c[6] - c[0], c[7] - c[1], c[8] - c[2]
            px, py, pz = dy * e2z - dz * e2y, dz * e2x - dx * e2z, dx * e2y - dy * e2x
            det = e1x * px + e1y * py + e1z * pz
            if abs(det) < 1e-14:
                continue
            inverse = 1 / det
            sx, sy, sz = ox - c[0], oy - c[1], oz - c[2]
            u = (sx * px + sy * py + sz * pz) * inverse
            if u < 0 or u > 1:
                continue
            qx, qy, qz = sy * e1z - sz * e1y, sz * e1x - sx * e1z, sx * e1y - sy * e1x
            v = (dx * qx + dy * qy + dz * qz) * inverse
            if v < 0 or u + v > 1:
                continue
            t = (e2x * qx + e2y * qy + e2z * qz) * inverse
            if 1e-5 < t < best:
                best, hit, hit_u, hit_v = t, k, u, v
                if any_hit:
                    return best, hit, hit_u, hit_v
        node += 1
    return best, hit, hit_u, hit_v


@helper
def hit_body(w, body, k, ox, oy, oz, dx, dy, dz, limit, any_hit):
    """Cast a ray at one body; the mesh lives in a box of half size 1."""
    m = body[k]
    x, y, z = ox - m[0], oy - m[1], oz - m[2]
    hx, hy, hz = 1 / m[12], 1 / m[13], 1 / m[14]
    return hit_mesh(
        w, int(m[15]),
        (m[3] * x + m[6] * y + m[9] * z) * hx, (m[4] * x + m[7] * y + m[10] * z) * hy,
        (m[5] * x + m[8] * y + m[11] * z) * hz,
        (m[3] * dx + m[6] * dy + m[9] * dz) * hx, (m[4] * dx + m[7] * dy + m[10] * dz) * hy,
        (m[5] * dx + m[8] * dy + m[11] * dz) * hz, limit, any_hit,
    )  # fmt: skip


@helper
def bodies_shade(w, body, x, y, z, sx, sy, sz):
    """Tell whether a body stands between a point and the sun."""
    for k in range(body.shape[0]):
        lx, ly, lz, r2 = x - body[k, 0], y - body[k, 1], z - body[k, 2], body[k, 19] * body[k, 19]
        along, far2 = lx * sx + ly * sy + lz * sz, lx * lx + ly * ly + lz * lz
        if far2 - along * along > r2 or (along > 0 and far2 > r2):
            continue
        if hit_body(w, body, k, x, y, z, sx, sy, sz, 300.0, True)[1] != NOTHING:
            return True
    return False


@helper
def gap(w, e, rim, t, ox, oy, oz, dx, dy, dz):
    """Tell whether a ray slips between the leaves near a crown's outline; rim: 0 at the outline, 1 in the middle."""
    x, y, z = ox + dx * t - e[0], oy + dy * t - e[1], oz + dz * t - e[2]
    n = w.leaf[math.floor(13.0 * y + 11.0 * z) & 255, math.floor(13.0 * x - 9.0 * z) & 255]
    return rim < RAGGED * (n - 0.15)


@helper
def visible(w, body, start, item, depths, tile, ox, oy, oz, dx, dy, dz, limit, pixel):
    """Return t, item, face or triangle, u, v of the nearest thing on a ray of a tile; the ray's forward part is 1.

    Faces of a box: 0 -x, 1 +x, 2 -y, 3 +y, 4 top, 5 bottom; of a tree: the lobe of its crown.
    """
    best, hit, face, hit_u, hit_v = limit, NOTHING, 0, 0.0, 0.0
    boxes, trees = w.box.shape[0], w.tree.shape[0]
    for k in range(start[tile], start[tile + 1]):
        if depths[k] >= best:
            break
        i = item[k]
        if i < boxes:
            b = w.box[i]
            lx, ly, lz = ox - b[0], oy - b[1], oz - b[2]
            px, py = b[6] * lx + b[7] * ly, b[6] * ly - b[7] * lx
            ex, ey = b[6] * dx + b[7] * dy, b[6] * dy - b[7] * dx
            ex = ex if abs(ex) > 1e-12 else 1e-12
            ey = ey if abs(ey) > 1e-12 else 1e-12
            ix, iy, iz = 1 / ex, 1 / ey, 1 / dz
            a, g = -px * ix, b[3] * abs(ix)
            x0, x1 = a - g, a + g
            a, g = -py * iy, b[4] * abs(iy)
            y0, y1 = a - g, a + g
            a, g = -lz * iz, b[5] * abs(iz)
            z0, z1 = a - g, a + g
            t0, t1 = max(x0, max(y0, z0)), min(x1, min(y1, z1))
            if t0 < t1 and 0.01 < t0 < best:
                best, hit = t0, i
                if t0 == x0:
                    face = 0 if ex > 0 else 1
                elif t0 == y0:
                    face = 2 if ey > 0 else 3
                else:
                    face = 5 if dz > 0 else 4
        elif i < boxes + trees:
            s = w.tree[i - boxes]
            px, py, pz = s[0] - ox, s[1] - oy, s[2] - oz
            along, square = px * dx + py * dy + pz * dz, dx * dx + dy * dy + dz * dz
            if (px * px + py * py + pz * pz - s[3] * s[3]) * square > along * along:
                continue
            for lobe in range(w.crown.shape[1]):
                e = w.crown[i - boxes, lobe]
                ir, iz = 1 / e[3], 1 / e[4]
                px, py, pz = (ox - e[0]) * ir, (oy - e[1]) * ir, (oz - e[2]) * iz
                ex, ey, ez = dx * ir, dy * ir, dz * iz
                a, q = ex * ex + ey * ey + ez * ez, px * ex + py * ey + pz * ez
                d = q * q - a * (px * px + py * py + pz * pz - 1)
                if d > 0:
                    t0 = (-q - math.sqrt(d)) / a
                    if 0.01 < t0 < best:
                        outline = d < RAGGED * a and t0 * pixel < 0.1
                        if not (outline and gap(w, e, d / a, t0, ox, oy, oz, dx, dy, dz)):
                            best, hit, face = t0, i, lobe
        else:
            t, triangle, u, v = hit_body(w, body, i - boxes - trees, ox, oy, oz, dx, dy, dz, best, False)
            if triangle != NOTHING:
                best, hit, face, hit_u, hit_v = t, i, triangle, u, v
    return best, hit, face, hit_u, hit_v
