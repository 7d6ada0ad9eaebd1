"""Light along a ray: sky, sun and shade, fog, wet mirrors; and what the ray hits, for the other cameras."""

from __future__ import annotations

import math

import numpy as np

from infra.minicarla.render.kernels import FAR_M, NOTHING, helper, kernel
from infra.minicarla.render.rays import TILE, bodies_shade, visible
from infra.minicarla.render.shadow import shaded
from infra.minicarla.render.surfaces import ground_colour, leaves, part_at, soft_noise, wall_colour

SKY_TAG, VEGETATION_TAG, TERRAIN_TAG, SIDEWALK_TAG = 11, 9, 10, 2
SKY_SURFACE = 1 << 40
HORIZON_M = 700.0


@helper
def sky(w, light, dx, dy, dz):
    """Return the sky's light in a unit direction: gradient, clouds, glow around the sun."""
    up = min(max(dz, 0.0), 1.0)
    k = math.sqrt(up)
    towards = dx * light.sun_x + dy * light.sun_y + dz * light.sun_z
    glow = 0.0
    if towards > 0:
        glow = towards * towards
        glow *= glow
        glow *= glow
        glow *= glow
        glow = 0.25 * glow * towards * towards * (1.0 - 0.8 * light.clouds)
    r = light.horizon[0] + (light.zenith[0] - light.horizon[0]) * k
    g = light.horizon[1] + (light.zenith[1] - light.horizon[1]) * k
    b = light.horizon[2] + (light.zenith[2] - light.horizon[2]) * k
    if dz > 0.02:
        q = 49.0 / (dz + 0.08)
        cover = soft_noise(w, dx * q, dy * q)
        cover = min(max((cover - 1 + light.clouds) * 3.0, 0.0), 1.0) * min(dz * 6, 1.0) * 0.75
        bright = 0.55 + 0.2 * light.sun[0]
        r += (bright * (light.horizon[0] * 0.4 + 0.6) - r) * cover
        g += (bright * (light.horizon[1] * 0.4 + 0.6) - g) * cover
        b += (bright * (light.horizon[2] * 0.4 + 0.6) - b) * cover
    return r + light.sun[0] * glow, g + light.sun[1] * glow, b + light.sun[2] * glow


@helper
def mirrored(w, light, x, y, z, dx, dy, dz):
    """Return the light that comes along a reflected ray: the coarse relief, else the sky."""
    if dz > 0.004:
        rows, columns = w.relief.shape[0], w.relief.shape[1]
        step, t = 2.0, 2.0
        for _ in range(18):
            px, py, pz = x + dx * t - w.ground_x, y + dy * t - w.ground_y, z + dz * t
            i, j = int(py * 0.5), int(px * 0.5)
            if px < 0 or py < 0 or i >= rows or j >= columns:
                break
            cell = w.relief[i, j]
            if pz < cell[0]:
                q = 1 / 65025.0
                return (
                    cell[1] * cell[1] * q * light.ambient[0],
                    cell[2] * cell[2] * q * light.ambient[1],
                    cell[3] * cell[3] * q * light.ambient[2],
                )
            t += step
            step *= 1.12
    elif dz < -0.05:  # the ground
        dim = 0.09 * (1 + dz) + 0.05
        return (
            dim * (light.ambient[0] + 0.4 * light.sun[0]),
            dim * (light.ambient[1] + 0.4 * light.sun[1]),
            dim * (light.ambient[2] + 0.4 * light.sun[2]),
        )
    return sky(w, light, dx, dy, max(dz, 0.0))


@helper
def cast(w, light, shade, body, ahead, below, tile, ox, oy, oz, dx, dy, dz, pixel):
    """Return linear r, g, b, depth in m, tag, instance id and a surface number of a ray whose forward part is 1.

    A wet road is a flat mirror: what it shows is what an eye at the same depth below it sees, through lists of its own.
    """
    dz = dz if abs(dz) > 1e-9 else 1e-9
    start, item, depths = ahead
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    red, green, blue, weight = 0.0, 0.0, 0.0, 1.0
    depth, label, who, where = FAR_M, SKY_TAG, 0, SKY_SURFACE
    for bounce in range(2):
        ground_t = -oz / dz if dz < 0 and oz > 0 else 1e9  # nothing lies below
        limit = min(ground_t, HORIZON_M)
        t, i, face, u, v = visible(w, body, start, item, depths, tile, ox, oy, oz, dx, dy, dz, limit, pixel)
        vx, vy, vz = dx / length, dy / length, dz / length
        if i == NOTHING and ground_t >= HORIZON_M:
            r, g, b = sky(w, light, vx, vy, vz)
            left = math.exp(-light.fog_per_m * 14.0 / (abs(vz) + 0.025))
            f0, f1, f2 = fog_towards(light, vx, vy)
            red += weight * (f0 + (r - f0) * left)
            green += weight * (f1 + (g - f1) * left)
            blue += weight * (f2 + (b - f2) * left)
            break
        r, g, b, mirror, tag, identity, surface = lit(
            w, light, shade, body, i, face, u, v, ox + dx * t, oy + dy * t, oz + dz * t, vx, vy, vz, t * length, pixel
        )
        if bounce == 0:
            depth, label, who, where = t, tag, identity, surface
        if bounce == 1 or mirror < 0.02:
            mirror = 0.0
        own = weight * (1 - mirror)
        red, green, blue, weight = red + own * r, green + own * g, blue + own * b, weight * mirror
        if weight == 0.0:
            break
        oz, dz = -oz, -dz
        start, item, depths = below
    return red, green, blue, depth, label, who, where


@helper
def fog_towards(light, vx, vy):
    """Return the fog's light in a direction: brighter towards the sun."""
    towards = max(vx * light.flat_x + vy * light.flat_y, 0.0)
    glow = towards * towards * towards
    return (
        light.fog[0] + (light.fog_sun[0] - light.fog[0]) * glow,
        light.fog[1] + (light.fog_sun[1] - light.fog[1]) * glow,
        light.fog[2] + (light.fog_sun[2] - light.fog[2]) * glow,
    )


@helper
def lit(w, light, shade, body, i, face, u, v, px, py, pz, vx, vy, vz, distance, pixel):
    """Return linear r, g, b of a hit after fog, the share that a flat mirror would add, tag, id, surface number."""
    boxes, trees = w.box.shape[0], w.tree.shape[0]
    nx, ny, nz, gloss, offset = 0.0, 0.0, 1.0, 0.0, 0.05
    e0, e1, e2 = 0.0, 0.0, 0.0
    if i == NOTHING:
        grazing = math.sqrt(max(-vz, 0.01))
        r, g, b, kind = ground_colour(w, px, py, distance * pixel / grazing)
        tag, identity, surface = w.ground_tag[kind], 0, 1 + kind
        if light.wet > 0 and tag != TERRAIN_TAG:
            puddle = min(max((soft_noise(w, px * 5.0, py * 5.0) - 0.45) * 6.0, 0.0), 1.0)
            gloss = light.wet * (0.45 + 0.5 * puddle if tag != SIDEWALK_TAG else 0.25)
            damp = 1 - 0.28 * light.wet
            r, g, b = r * damp, g * damp, b * damp
    elif i < boxes:
        tag, identity = w.box_tag[i], w.box_id[i]
        surface = 64 + (i * 8 + face) * 2
        if face < 4:
            c = w.box[i]
            ax = (-1.0 if face == 0 else 1.0) if face < 2 else 0.0
            ay = (-1.0 if face == 2 else 1.0) if face >= 2 else 0.0
            nx, ny, nz = c[6] * ax - c[7] * ay, c[7] * ax + c[6] * ay, 0.0
            facing = math.sqrt(max(-(vx * nx + vy * ny), 0.08))
            r, g, b, glass, lamp = wall_colour(w, i, face, px, py, pz, distance * pixel / facing)
            gloss, offset = 0.5 * glass, 0.35
            lamp *= light.lamps
            e0, e1, e2 = 0.85 * lamp, 0.55 * lamp, 0.25 * lamp
        else:
            nz = 1.0 if face == 4 else -1.0
            r, g, b = w.roof[i, 0], w.roof[i, 1], w.roof[i, 2]
    elif i < boxes + trees:
        e = w.crown[i - boxes, face]
        tag, identity, surface = VEGETATION_TAG, w.tree_id[i - boxes], (1 << 30) + (i * 8 + face) * 2
        ir, iz = 1 / (e[3] * e[3]), 1 / (e[4] * e[4])
        nx, ny, nz = (px - e[0]) * ir, (py - e[1]) * ir, (pz - e[2]) * iz
        q = 1 / math.sqrt(nx * nx + ny * ny + nz * nz)
        n1 = leaves(w, px * 34.0, py * 34.0, pz * 34.0) - 0.5
        n2 = leaves(w, py * 19.0 + 7.0, pz * 19.0, px * 19.0) - 0.5
        near = min(0.035 / max(distance * pixel, 1e-4), 1.0)
        leaf = 0.92 + 0.22 * nz * q + (1.5 * n1 + 0.9 * n2) * near
        nx, ny, nz = nx * q + 2.2 * n1 * near, ny * q + 2.2 * n2 * near, nz * q + 0.1
        q = 1 / math.sqrt(nx * nx + ny * ny + nz * nz)
        nx, ny, nz = nx * q, ny * q, nz * q
        leaf = max(leaf, 0.2)
        r, g, b, offset = e[5] * leaf, e[6] * leaf, e[7] * leaf, 0.8
    else:
        m = body[i - boxes - trees]
        c, k0 = w.normals[face], 1 - u - v
        lx = (c[0] * k0 + c[3] * u + c[6] * v) / m[12]
        ly = (c[1] * k0 + c[4] * u + c[7] * v) / m[13]
        lz = (c[2] * k0 + c[5] * u + c[8] * v) / m[14]
        q = 1 / math.sqrt(lx * lx + ly * ly + lz * lz)
        lx, ly, lz = lx * q, ly * q, lz * q
        part = w.part[face]
        if part == 0:
            x, y, z = px - m[0], py - m[1], pz - m[2]
            part = part_at(
                w, int(m[15]), (m[3] * x + m[6] * y + m[9] * z) / m[12], (m[4] * x + m[7] * y + m[10] * z) / m[13],
                (m[5] * x + m[8] * y + m[11] * z) / m[14], lx, ly, lz,
            )  # fmt: skip
        nx, ny, nz = (
            m[3] * lx + m[4] * ly + m[5] * lz,
            m[6] * lx + m[7] * ly + m[8] * lz,
            m[9] * lx + m[10] * ly + m[11] * lz,
        )
        if nx * vx + ny * vy + nz * vz > 0:  # thin parts are seen from both sides
            nx, ny, nz = -nx, -ny, -nz
        r, g, b = w.part_rgb[part, 0], w.part_rgb[part, 1], w.part_rgb[part, 2]
        if part == 0:
            r, g, b = m[16], m[17], m[18]
        glow = light.lamps * m[22]
        e0, e1, e2 = w.part_glow[part, 0] * glow, w.part_glow[part, 1] * glow, w.part_glow[part, 2] * glow
        gloss = w.part_gloss[part] * m[22]
        tag, identity, surface = int(m[21]), int(m[20]), (1 << 34) + (i * 16 + part) * 2
    facing_sun = nx * light.sun_x + ny * light.sun_y + nz * light.sun_z
    dark = 1.0
    if facing_sun > 0:
        dark = shaded(shade, px + nx * offset, py + ny * offset, pz + nz * offset + 0.03)
        if dark < 1 and bodies_shade(
            w, body, px + nx * 0.02, py + ny * 0.02, pz + nz * 0.02, light.sun_x, light.sun_y, light.sun_z
        ):
            dark = 1.0
    direct = max(facing_sun, 0.0) * (1 - dark)
    around = (0.62 + 0.38 * nz) * (1.0 if i != NOTHING else under_cars(body, px, py))
    r = r * r / 65025.0 * (light.ambient[0] * around + light.sun[0] * direct) + e0
    g = g * g / 65025.0 * (light.ambient[1] * around + light.sun[1] * direct) + e1
    b = b * b / 65025.0 * (light.ambient[2] * around + light.sun[2] * direct) + e2
    mirror = 0.0
    if gloss > 0:
        along = vx * nx + vy * ny + vz * nz
        m1 = 1 - min(max(-along, 0.0), 1.0)
        m2 = m1 * m1
        mirror = min((0.04 + 0.96 * m2 * m2 * m1) * gloss * 1.3, 0.85)
        if i != NOTHING:
            if mirror > 0.015:
                rx, ry, rz = vx - 2 * along * nx, vy - 2 * along * ny, vz - 2 * along * nz
                s0, s1, s2 = mirrored(w, light, px + nx * 0.02, py + ny * 0.02, pz + 0.02, rx, ry, rz)
                r, g, b = r + (s0 - r) * mirror, g + (s1 - g) * mirror, b + (s2 - b) * mirror
                towards = rx * light.sun_x + ry * light.sun_y + rz * light.sun_z
                if towards > 0.8 and dark < 1:
                    glint = (towards - 0.8) * 5
                    glint *= glint
                    glint *= glint
                    glint *= glint * gloss * (1 - dark) * 0.5
                    r, g, b = r + light.sun[0] * glint, g + light.sun[1] * glint, b + light.sun[2] * glint
            mirror = 0.0
    whole = min(int(distance), 999)
    left = light.clear[whole] + (light.clear[whole + 1] - light.clear[whole]) * (distance - int(distance))
    f0, f1, f2 = fog_towards(light, vx, vy)
    return (
        f0 + (r - f0) * left, f1 + (g - f1) * left, f2 + (b - f2) * left,
        mirror, tag, identity, surface + (1 if dark > 0.5 and facing_sun > 0 else 0),
    )  # fmt: skip


@helper
def under_cars(body, x, y):
    """Return how much of the sky a point of the ground sees: less below and close to a body."""
    least = 1.0
    for k in range(body.shape[0]):
        m = body[k]
        dx, dy = x - m[0], y - m[1]
        if dx * dx + dy * dy < (m[19] + 1.0) * (m[19] + 1.0):
            u = max(abs(m[3] * dx + m[6] * dy) - 0.85 * m[12], 0.0)
            v = max(abs(m[4] * dx + m[7] * dy) - 0.85 * m[13], 0.0)
            least = min(least, min(0.3 + 1.1 * math.sqrt(u * u + v * v), 1.0))
    return least


@helper
def tone(c):
    """Compress linear light to a byte's range: soft shoulder, then a square root for the display's gamma."""
    return math.sqrt(min(max(c, 0.0) / (1 + 0.35 * c) * 1.2, 1.0)) * 255


@kernel
def draw(w, light, shade, body, ahead, below, eye, axes, tan_x, first, step, rgb, depth, tag, identity, surface):
    """Cast one ray per pixel for every `step`-th row of tiles: sRGB bytes, depth in m, tag, id, surface number."""
    height, width = depth.shape
    tan_y, pixel, across = tan_x * height / width, 2 * tan_x / width, (width + TILE - 1) // TILE
    for row in range(first, (height + TILE - 1) // TILE, step):
        for y in range(row * TILE, min(row * TILE + TILE, height)):
            up = (1 - 2 * (y + 0.5) / height) * tan_y
            for x in range(width):
                side = (2 * (x + 0.5) / width - 1) * tan_x
                r, g, b, t, what, who, where = cast(
                    w, light, shade, body, ahead, below, row * across + x // TILE, eye[0], eye[1], eye[2],
                    axes[2, 0] + axes[0, 0] * side + axes[1, 0] * up, axes[2, 1] + axes[0, 1] * side + axes[1, 1] * up,
                    axes[2, 2] + axes[0, 2] * side + axes[1, 2] * up, pixel,
                )  # fmt: skip
                rgb[y, x, 0], rgb[y, x, 1], rgb[y, x, 2] = tone(r), tone(g), tone(b)
                depth[y, x], tag[y, x], identity[y, x], surface[y, x] = t, what, who, where


@kernel
def smooth_edges(w, light, shade, body, ahead, below, eye, axes, tan_x, first, step, rgb, surface, bgra):
    """Write BGRA bytes; pixels whose neighbours show another surface are the mean of three rays."""
    height, width = surface.shape
    tan_y, pixel, across = tan_x * height / width, 2 * tan_x / width, (width + TILE - 1) // TILE
    for row in range(first, (height + TILE - 1) // TILE, step):
        for y in range(row * TILE, min(row * TILE + TILE, height)):
            upper, lower = max(y - 1, 0), min(y + 1, height - 1)
            for x in range(width):
                own = surface[y, x]
                left, right = max(x - 1, 0), min(x + 1, width - 1)
                same = surface[upper, x] == own and surface[lower, x] == own
                red, green, blue = rgb[y, x, 0], rgb[y, x, 1], rgb[y, x, 2]
                if not (same and surface[y, left] == own and surface[y, right] == own):
                    for k in range(2):  # with the middle, three rays on a slanted line: they differ in x and in y
                        side = (2 * (x + (1 + 4 * k) / 6) / width - 1) * tan_x
                        up = (1 - 2 * (y + (1 + k) / 3) / height) * tan_y
                        r, g, b, _, _, _, _ = cast(
                            w, light, shade, body, ahead, below, row * across + x // TILE, eye[0], eye[1], eye[2],
                            axes[2, 0] + axes[0, 0] * side + axes[1, 0] * up,
                            axes[2, 1] + axes[0, 1] * side + axes[1, 1] * up,
                            axes[2, 2] + axes[0, 2] * side + axes[1, 2] * up, pixel,
                        )  # fmt: skip
                        red += np.float32(tone(r))
                        green += np.float32(tone(g))
                        blue += np.float32(tone(b))
                    third = np.float32(1 / 3)
                    red, green, blue = red * third, green * third, blue * third
                bgra[y, x, 0], bgra[y, x, 1] = np.uint8(blue + 0.5), np.uint8(green + 0.5)
                bgra[y, x, 2], bgra[y, x, 3] = np.uint8(red + 0.5), 255
