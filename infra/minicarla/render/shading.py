"""Colour of a ray: ground, walls, trees, cars, sky; sun and shade, fog, wet mirrors; and what it is, for the other cameras."""

from __future__ import annotations

import math

import numpy as np

from infra.minicarla.render.kernels import FAR_M, NOTHING, helper, kernel
from infra.minicarla.render.rays import TILE, bodies_shade, visible
from infra.minicarla.render.shadow import shaded
from infra.minicarla.render.textures import FACADE_M, FACADE_SIDE

SKY_TAG, VEGETATION_TAG, TERRAIN_TAG, SIDEWALK_TAG = 11, 9, 10, 2
SKY_SURFACE = 1 << 40
HORIZON_M = 700.0


@helper()
def level_for(footprint, levels):
    """Return the mip level whose texels are about `footprint` of the finest's."""
    level = 0
    while footprint > 1.4 and level < levels - 1:
        footprint *= 0.5
        level += 1
    return level


@helper()
def bilinear(texels, start, rows, columns, channels, channel, x, y, wrap):
    """Return a channel of a texture at texel coordinates, repeated or held at its edges."""
    x, y = x - 0.5, y - 0.5
    fx, fy = math.floor(x), math.floor(y)
    ax, ay = x - fx, y - fy
    x0, y0 = int(fx), int(fy)
    x1, y1 = x0 + 1, y0 + 1
    if wrap:
        x0, x1, y0, y1 = x0 % columns, x1 % columns, y0 % rows, y1 % rows
    else:
        x0, x1 = min(max(x0, 0), columns - 1), min(max(x1, 0), columns - 1)
        y0, y1 = min(max(y0, 0), rows - 1), min(max(y1, 0), rows - 1)
    a = texels[start + (y0 * columns + x0) * channels + channel]
    b = texels[start + (y0 * columns + x1) * channels + channel]
    c = texels[start + (y1 * columns + x0) * channels + channel]
    d = texels[start + (y1 * columns + x1) * channels + channel]
    return (a * (1 - ax) + b * ax) * (1 - ay) + (c * (1 - ax) + d * ax) * ay


@helper()
def noise_at(w, x, y):
    return w.noise[int(math.floor(y)) & 255, int(math.floor(x)) & 255]


@helper()
def soft_noise(w, x, y):
    fx, fy = math.floor(x), math.floor(y)
    ax, ay = x - fx, y - fy
    i0, j0 = int(fy) & 255, int(fx) & 255
    i1, j1 = (i0 + 1) & 255, (j0 + 1) & 255
    top = w.noise[i0, j0] * (1 - ax) + w.noise[i0, j1] * ax
    return top * (1 - ay) + (w.noise[i1, j0] * (1 - ax) + w.noise[i1, j1] * ax) * ay


@helper()
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


@helper()
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
    return sky(w, light, dx, dy, max(dz, 0.0))


@helper()
def ground_colour(w, x, y, footprint):
    """Return r, g, b (0..255, sRGB) and the kind of the ground; footprint: metres a pixel covers."""
    rows, columns = w.ground.shape
    gx, gy = (x - w.ground_x) * w.texels_per_m, (y - w.ground_y) * w.texels_per_m
    j, i = int(math.floor(gx)), int(math.floor(gy))
    if i < 1 or j < 1 or i >= rows - 1 or j >= columns - 1:
        n = soft_noise(w, x * 0.4, y * 0.4) - 0.5
        return 84.0 + 22 * n, 112.0 + 26 * n, 56.0 + 14 * n, 0
    kind = w.ground[i, j]
    texels = footprint * w.texels_per_m
    far = min(max((texels - 2.2) * 0.7, 0.0), 1.0)
    r, g, b = 0.0, 0.0, 0.0
    if far < 1:
        ax, ay = gx - 0.5, gy - 0.5
        j0, i0 = int(math.floor(ax)), int(math.floor(ay))
        ax, ay = ax - j0, ay - i0
        sharp = min(max(1.0 / max(texels, 0.05), 1.0), 6.0)
        total = 0.0
        for k in range(4):  # kinds at the four corners, weighted, edges drawn as sharp as the pixel allows
            own = w.ground[i0 + (k >> 1), j0 + (k & 1)]
            seen = False
            share = 0.0
            for m in range(4):
                if w.ground[i0 + (m >> 1), j0 + (m & 1)] == own:
                    if m < k:
                        seen = True
                    share += (ax if m & 1 else 1 - ax) * (ay if m >> 1 else 1 - ay)
            if seen:
                continue
            weight = min(max((share - 0.5) * sharp + 0.5, 0.0), 1.0) + 1e-6
            total += weight
            r += w.ground_rgb[own, 0] * weight
            g += w.ground_rgb[own, 1] * weight
            b += w.ground_rgb[own, 2] * weight
        r, g, b = r / total, g / total, b / total
    if far > 0:
        level = level_for(texels * 0.25, len(w.mip_start))
        scale = 0.25 / (1 << level)
        start, mr, mc = w.mip_start[level], w.mip_rows[level], w.mip_columns[level]
        r += (bilinear(w.mip, start, mr, mc, 3, 0, gx * scale, gy * scale, False) - r) * far
        g += (bilinear(w.mip, start, mr, mc, 3, 1, gx * scale, gy * scale, False) - g) * far
        b += (bilinear(w.mip, start, mr, mc, 3, 2, gx * scale, gy * scale, False) - b) * far
    fine = (noise_at(w, x * 61.0, y * 61.0) - 0.5) * min(1.0, 0.03 / max(footprint, 1e-3))
    coarse = soft_noise(w, x * 1.9 + 0.5 * y, y * 1.9 - 0.5 * x) - 0.5
    strength = 1.0 if kind == 0 or kind == 6 else 0.45
    change = (44 * fine + 30 * coarse * min(1.0, 1.5 / max(footprint, 1e-3))) * strength
    return max(r + change, 0.0), max(g + change, 0.0), max(b + 0.8 * change, 0.0), kind


@helper()
def wall_colour(w, light, i, face, x, y, z, footprint):
    """Return r, g, b (0..255) of a box's side, and how much of it is window glass."""
    b = w.box[i]
    pattern = int(b[11])
    if pattern == 0:
        n = noise_at(w, (x + y) * 11.0, z * 11.0) - 0.5
        return b[8] + 14 * n, b[9] + 14 * n, b[10] + 14 * n, 0.0
    lx, ly = b[6] * (x - b[0]) + b[7] * (y - b[1]), b[6] * (y - b[1]) - b[7] * (x - b[0])
    u = lx + b[3] if face == 2 else (b[3] - lx if face == 3 else (ly + b[4] if face == 1 else b[4] - ly))
    v = b[2] + b[5] - z
    level = level_for(footprint * FACADE_SIDE / FACADE_M, 7)
    side = FACADE_SIDE >> level
    start = (pattern - 1) % 16 * w.facade_size + w.facade_start[level]
    tx, ty = u / FACADE_M * side, v / FACADE_M * side
    bright = bilinear(w.facade, start, side, side, 2, 0, tx, ty, True) / 205.0
    glass = bilinear(w.facade, start, side, side, 2, 1, tx, ty, True) / 255.0
    dim = 0.7 + 0.3 * noise_at(w, math.floor(u / 3.0) * 17.0 + i * 5.0, math.floor(v / 3.0) * 29.0)
    return (
        b[8] * bright * (1 - glass) + 52 * glass * dim,
        b[9] * bright * (1 - glass) + 64 * glass * dim,
        b[10] * bright * (1 - glass) + 78 * glass * dim,
        glass,
    )


@helper()
def cast(w, light, shade, body, start, item, depths, tile, ox, oy, oz, dx, dy, dz, pixel):
    """Return linear r, g, b, depth in m, tag, instance id and a surface number of a ray whose forward part is 1."""
    dz = dz if abs(dz) > 1e-9 else 1e-9
    ground_t = -oz / dz if dz < 0 else 1e9
    t, i, face, u, v = visible(w, body, start, item, depths, tile, ox, oy, oz, dx, dy, dz, min(ground_t, HORIZON_M))
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    vx, vy, vz = dx / length, dy / length, dz / length
    if i == NOTHING and ground_t >= HORIZON_M:
        r, g, b = sky(w, light, vx, vy, vz)
        left = math.exp(-light.fog_per_m * 14.0 / (abs(vz) + 0.025))
        return (
            light.fog[0] + (r - light.fog[0]) * left,
            light.fog[1] + (g - light.fog[1]) * left,
            light.fog[2] + (b - light.fog[2]) * left,
            FAR_M, SKY_TAG, 0, SKY_SURFACE,
        )  # fmt: skip
    px, py, pz, distance = ox + dx * t, oy + dy * t, oz + dz * t, t * length
    boxes, crowns = w.box.shape[0], w.crown.shape[0]
    nx, ny, nz, gloss, offset, flat = 0.0, 0.0, 1.0, 0.0, 0.05, 1.0
    if i == NOTHING:
        grazing = math.sqrt(max(-vz, 0.01))
        r, g, b, kind = ground_colour(w, px, py, distance * pixel / grazing)
        tag, identity, surface = w.ground_tag[kind], 0, 1 + kind
        if light.wet > 0:
            puddle = min(max((soft_noise(w, px * 0.35, py * 0.35) - 0.45) * 4.0, 0.0), 1.0)
            smooth = 0.55 + 0.35 * puddle if tag != TERRAIN_TAG and tag != SIDEWALK_TAG else 0.25
            gloss = light.wet * smooth
    elif i < boxes:
        tag, identity = w.box_tag[i], w.box_id[i]
        surface = 64 + (i * 8 + face) * 2
        if face < 4:
            c = w.box[i]
            ax = (-1.0 if face == 0 else 1.0) if face < 2 else 0.0
            ay = (-1.0 if face == 2 else 1.0) if face >= 2 else 0.0
            nx, ny, nz = c[6] * ax - c[7] * ay, c[7] * ax + c[6] * ay, 0.0
            facing = math.sqrt(max(-(vx * nx + vy * ny), 0.08))
            r, g, b, glass = wall_colour(w, light, i, face, px, py, pz, distance * pixel / facing)
            gloss, offset = 0.5 * glass, 0.35
        else:
            nz = 1.0 if face == 4 else -1.0
            r, g, b = w.roof[i, 0], w.roof[i, 1], w.roof[i, 2]
    elif i < boxes + crowns:
        e = w.crown[i - boxes]
        tag, identity, surface = VEGETATION_TAG, w.crown_id[i - boxes], (1 << 30) + i * 2
        ir, iz = 1 / (e[3] * e[3]), 1 / (e[4] * e[4])
        nx, ny, nz = (px - e[0]) * ir, (py - e[1]) * ir, (pz - e[2]) * iz
        q = 1 / math.sqrt(nx * nx + ny * ny + nz * nz)
        n1 = noise_at(w, (pz + py * 0.4) * 90, (px + py * 0.7) * 90)
        n2 = noise_at(w, (px + pz * 0.8) * 70, (py - pz * 0.6) * 70)
        leaf = 0.35 + 1.2 * n1 * n2 + 0.25 * (nz * q + 0.3)
        far = min(distance * 0.012, 0.8)
        leaf = leaf * (1 - far) + 0.8 * far
        nx, ny, nz = nx * q + (n1 - 0.5) * 0.9, ny * q + (n2 - 0.5) * 0.9, nz * q + 0.1
        q = 1 / math.sqrt(nx * nx + ny * ny + nz * nz)
        nx, ny, nz = nx * q, ny * q, nz * q
        r, g, b, offset = e[5] * leaf, e[6] * leaf, e[7] * leaf, 0.8
    else:
        m = body[i - boxes - crowns]
        c, k0 = w.normals[face], 1 - u - v
        lx = (c[0] * k0 + c[3] * u + c[6] * v) / m[12]
        ly = (c[1] * k0 + c[4] * u + c[7] * v) / m[13]
        lz = (c[2] * k0 + c[5] * u + c[8] * v) / m[14]
        nx, ny, nz = (
            m[3] * lx + m[4] * ly + m[5] * lz,
            m[6] * lx + m[7] * ly + m[8] * lz,
            m[9] * lx + m[10] * ly + m[11] * lz,
        )
        q = 1 / math.sqrt(nx * nx + ny * ny + nz * nz)
        if nx * vx + ny * vy + nz * vz > 0:  # thin parts are seen from both sides
            q = -q
        nx, ny, nz = nx * q, ny * q, nz * q
        part = w.part[face]
        r, g, b = w.part_rgb[part, 0], w.part_rgb[part, 1], w.part_rgb[part, 2]
        if part == 0:
            r, g, b = m[16], m[17], m[18]
        gloss, flat = w.part_gloss[part] * m[22], 0.0
        tag, identity, surface = int(m[21]), int(m[20]), (1 << 34) + (i * 16 + part) * 2
    facing_sun = max(nx * light.sun_x + ny * light.sun_y + nz * light.sun_z, 0.0)
    dark = 0.0
    if facing_sun > 0:
        dark = shaded(shade, px + nx * offset, py + ny * offset, pz + nz * offset + 0.03)
        if dark < 1 and bodies_shade(
            w, body, px + nx * 0.02, py + ny * 0.02, pz + nz * 0.02, light.sun_x, light.sun_y, light.sun_z
        ):
            dark = 1.0
        facing_sun *= 1 - dark
    damp = (1 - 0.4 * gloss * flat) / 65025.0
    around = 0.65 + 0.35 * nz
    r = r * r * damp * (light.ambient[0] * around + light.sun[0] * facing_sun)
    g = g * g * damp * (light.ambient[1] * around + light.sun[1] * facing_sun)
    b = b * b * damp * (light.ambient[2] * around + light.sun[2] * facing_sun)
    if gloss > 0:
        along = vx * nx + vy * ny + vz * nz
        m1 = 1 - min(max(-along, 0.0), 1.0)
        m2 = m1 * m1
        share = min((0.04 + 0.96 * m2 * m2 * m1) * gloss * 1.3, 0.85)
        if share > 0.02:
            rx, ry, rz = vx - 2 * along * nx, vy - 2 * along * ny, vz - 2 * along * nz
            s0, s1, s2 = mirrored(w, light, px + nx * 0.02, py + ny * 0.02, pz + 0.02, rx, ry, rz)
            r, g, b = r + (s0 - r) * share, g + (s1 - g) * share, b + (s2 - b) * share
    whole = min(int(distance), 999)
    left = light.clear[whole] + (light.clear[whole + 1] - light.clear[whole]) * (distance - int(distance))
    return (
        light.fog[0] + (r - light.fog[0]) * left,
        light.fog[1] + (g - light.fog[1]) * left,
        light.fog[2] + (b - light.fog[2]) * left,
        t, tag, identity, surface + (1 if dark > 0.5 else 0),
    )  # fmt: skip


@helper()
def tone(c):
    """Compress linear light to a byte's range: soft shoulder, then a square root for the display's gamma."""
    return math.sqrt(min(max(c, 0.0) / (1 + 0.35 * c) * 1.2, 1.0)) * 255


@kernel()
def draw(w, light, shade, body, start, item, depths, eye, axes, tan_x, first, step, rgb, depth, tag, identity, surface):
    """Cast one ray a pixel for every `step`-th row of tiles: sRGB bytes, depth in m, tag, id, surface number."""
    height, width = depth.shape
    tan_y, pixel, across = tan_x * height / width, 2 * tan_x / width, (width + TILE - 1) // TILE
    for row in range(first, (height + TILE - 1) // TILE, step):
        for y in range(row * TILE, min(row * TILE + TILE, height)):
            up = (1 - 2 * (y + 0.5) / height) * tan_y
            for x in range(width):
                side = (2 * (x + 0.5) / width - 1) * tan_x
                r, g, b, t, what, who, where = cast(
                    w, light, shade, body, start, item, depths, row * across + x // TILE, eye[0], eye[1], eye[2],
                    axes[2, 0] + axes[0, 0] * side + axes[1, 0] * up, axes[2, 1] + axes[0, 1] * side + axes[1, 1] * up,
                    axes[2, 2] + axes[0, 2] * side + axes[1, 2] * up, pixel,
                )  # fmt: skip
                rgb[y, x, 0], rgb[y, x, 1], rgb[y, x, 2] = tone(r), tone(g), tone(b)
                depth[y, x], tag[y, x], identity[y, x], surface[y, x] = t, what, who, where


@kernel()
def smooth_edges(w, light, shade, body, start, item, depths, eye, axes, tan_x, first, step, rgb, surface, out):
    """Write BGRA bytes; pixels whose neighbours show another surface are the mean of four more rays."""
    height, width = surface.shape
    tan_y, pixel, across = tan_x * height / width, 2 * tan_x / width, (width + TILE - 1) // TILE
    for row in range(first, (height + TILE - 1) // TILE, step):
        for y in range(row * TILE, min(row * TILE + TILE, height)):
            above, below = max(y - 1, 0), min(y + 1, height - 1)
            for x in range(width):
                own = surface[y, x]
                left, right = max(x - 1, 0), min(x + 1, width - 1)
                same = surface[above, x] == own and surface[below, x] == own
                red, green, blue = rgb[y, x, 0], rgb[y, x, 1], rgb[y, x, 2]
                if not (same and surface[y, left] == own and surface[y, right] == own):
                    red = green = blue = np.float32(0.0)
                    for k in range(4):  # a rotated grid
                        side = (2 * (x + 0.125 + 0.25 * ((2 * k + 1) % 5 - (k > 1))) / width - 1) * tan_x
                        up = (1 - 2 * (y + 0.125 + 0.25 * k) / height) * tan_y
                        r, g, b, _, _, _, _ = cast(
                            w, light, shade, body, start, item, depths, row * across + x // TILE, eye[0], eye[1], eye[2],
                            axes[2, 0] + axes[0, 0] * side + axes[1, 0] * up,
                            axes[2, 1] + axes[0, 1] * side + axes[1, 1] * up,
                            axes[2, 2] + axes[0, 2] * side + axes[1, 2] * up, pixel,
                        )  # fmt: skip
                        red += np.float32(0.25 * tone(r))
                        green += np.float32(0.25 * tone(g))
                        blue += np.float32(0.25 * tone(b))
                out[y, x, 0], out[y, x, 1] = np.uint8(blue + 0.5), np.uint8(green + 0.5)
                out[y, x, 2], out[y, x, 3] = np.uint8(red + 0.5), 255
