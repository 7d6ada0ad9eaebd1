"""What a ray hits, close up: the colours of ground, walls, leaves and cars (0..255, sRGB)."""

from __future__ import annotations

import math

from infra.minicarla.render.kernels import helper
from infra.minicarla.render.textures import FACADE_M, FACADE_SIDE

FLOOR_M = 3.0
COLUMNS, ROWS = 512, 256
"""Of a livery's drawings."""


@helper
def level_for(footprint, levels):
    """Return the mip level whose texels are about `footprint` of the finest's."""
    level = 0
    while footprint > 1.4 and level < levels - 1:
        footprint *= 0.5
        level += 1
    return level


@helper
def bilinear(texels, start, rows, columns, channels, channel, x, y, wrap):
    """Return a channel of a texture at texel coordinates, repeated (sides: powers of two) or held at its edges."""
    x, y = x - 0.5, y - 0.5
    fx, fy = math.floor(x), math.floor(y)
    ax, ay = x - fx, y - fy
    x0, y0 = int(fx), int(fy)
    x1, y1 = x0 + 1, y0 + 1
    if wrap:
        x0, x1, y0, y1 = x0 & (columns - 1), x1 & (columns - 1), y0 & (rows - 1), y1 & (rows - 1)
    else:
        x0, x1 = min(max(x0, 0), columns - 1), min(max(x1, 0), columns - 1)
        y0, y1 = min(max(y0, 0), rows - 1), min(max(y1, 0), rows - 1)
    a = texels[start + (y0 * columns + x0) * channels + channel]
    b = texels[start + (y0 * columns + x1) * channels + channel]
    c = texels[start + (y1 * columns + x0) * channels + channel]
    d = texels[start + (y1 * columns + x1) * channels + channel]
    return (a * (1 - ax) + b * ax) * (1 - ay) + (c * (1 - ax) + d * ax) * ay


@helper
def noise_at(w, x, y):
    return w.noise[math.floor(y) & 255, math.floor(x) & 255]


@helper
def soft_noise(w, x, y):
    fx, fy = math.floor(x), math.floor(y)
    ax, ay = x - fx, y - fy
    i0, j0 = int(fy) & 255, int(fx) & 255
    i1, j1 = (i0 + 1) & 255, (j0 + 1) & 255
    top = w.noise[i0, j0] * (1 - ax) + w.noise[i0, j1] * ax
    return top * (1 - ay) + (w.noise[i1, j0] * (1 - ax) + w.noise[i1, j1] * ax) * ay


@helper
def leaves(w, x, y, z):
    """Return 0..1: light and dark among leaves, alike in all directions."""
    a = w.leaf[math.floor(y) & 255, math.floor(x) & 255]
    b = w.leaf[math.floor(z) & 255, math.floor(y) & 255]
    c = w.leaf[math.floor(x) & 255, math.floor(z) & 255]
    return (a + b + c) / 3


@helper
def ground_near(w, gx, gy, texels):
    """Return r, g, b, kind at texel coordinates: edges smoothed over 3 x 3 texels, then as sharp as a pixel allows."""
    j, i = math.floor(gx), math.floor(gy)
    kind = w.ground[i, j]
    plain = True
    for n in range(-1, 2):
        for m in range(-1, 2):
            plain = plain and w.ground[i + n, j + m] == kind
    if plain:
        return w.ground_rgb[kind, 0], w.ground_rgb[kind, 1], w.ground_rgb[kind, 2], kind
    fx, fy = gx - j - 0.5, gy - i - 0.5
    best, winner = 0.0, kind
    for k in range(9):
        own, share = w.ground[i + k // 3 - 1, j + k % 3 - 1], 0.0
        for m in range(9):
            if w.ground[i + m // 3 - 1, j + m % 3 - 1] == own:
                share += spline(fx, m % 3) * spline(fy, m // 3)
        if share > best:
            best, winner = share, own
    sharp = min(max(1.33 / max(texels, 0.05), 1.0), 12.0)
    r, g, b, total = 0.0, 0.0, 0.0, 0.0
    for k in range(9):
        own = w.ground[i + k // 3 - 1, j + k % 3 - 1]
        share, seen = 0.0, False
        for m in range(9):
            if w.ground[i + m // 3 - 1, j + m % 3 - 1] == own:
                seen = seen or m < k
                share += spline(fx, m % 3) * spline(fy, m // 3)
        weight = (share - best) * sharp + 1.0
        if not seen and weight > 0:
            total += weight
            r += w.ground_rgb[own, 0] * weight
            g += w.ground_rgb[own, 1] * weight
            b += w.ground_rgb[own, 2] * weight
    return r / total, g / total, b / total, winner


@helper
def spline(f, k):
    """Return the quadratic B-spline's weight of neighbour k (0, 1, 2) at f in -0.5..0.5 from the middle one."""
    if k == 1:
        return 0.75 - f * f
    side = 0.5 + f if k == 2 else 0.5 - f
    return 0.5 * side * side


@helper
def ground_colour(w, x, y, footprint):
    """Return r, g, b and the kind of the ground; footprint: metres a pixel covers."""
    rows, columns = w.ground.shape
    gx, gy = (x - w.ground_x) * w.texels_per_m, (y - w.ground_y) * w.texels_per_m
    j, i = math.floor(gx), math.floor(gy)
    if i < 1 or j < 1 or i >= rows - 1 or j >= columns - 1:
        n = soft_noise(w, x * 0.4, y * 0.4) - 0.5
        return w.ground_rgb[0, 0] + 22 * n, w.ground_rgb[0, 1] + 26 * n, w.ground_rgb[0, 2] + 14 * n, 0
    texels = footprint * w.texels_per_m
    far = min(max((texels - 2.2) * 0.7, 0.0), 1.0)
    kind = int(w.ground[i, j])
    r, g, b = 0.0, 0.0, 0.0
    if far < 1:
        r, g, b, near = ground_near(w, gx, gy, texels)
        kind = int(near)
    if far > 0:
        level = level_for(texels * 0.25, len(w.mip_start))
        scale = 0.25 / (1 << level)
        start, mr, mc = w.mip_start[level], w.mip_rows[level], w.mip_columns[level]
        r += (bilinear(w.mip, start, mr, mc, 3, 0, gx * scale, gy * scale, False) - r) * far
        g += (bilinear(w.mip, start, mr, mc, 3, 1, gx * scale, gy * scale, False) - g) * far
        b += (bilinear(w.mip, start, mr, mc, 3, 2, gx * scale, gy * scale, False) - b) * far
    fine = (noise_at(w, x * 61.0, y * 61.0) - 0.5) * min(1.0, 0.03 / max(footprint, 1e-3))
    grain = (w.leaf[math.floor(y * 47.0) & 255, math.floor(x * 47.0) & 255] - 0.5) * min(
        1.0, 0.02 / max(footprint, 1e-3)
    )
    coarse = soft_noise(w, x * 1.9 + 0.5 * y, y * 1.9 - 0.5 * x) - 0.5
    strength = 1.0 if kind == 0 or kind == 6 else 0.5
    change = (24 * fine + 34 * grain + 30 * coarse * min(1.0, 1.5 / max(footprint, 1e-3))) * strength
    return max(r + change, 0.0), max(g + change, 0.0), max(b + 0.8 * change, 0.0), kind


@helper
def wall_colour(w, i, face, x, y, z, footprint):
    """Return r, g, b of a box's side, how much of it is window glass, and how much of that is lit at dusk.

    Windows stand in whole floors and columns; every other pattern has shop windows on the ground floor.
    """
    b = w.box[i]
    pattern = int(b[11])
    if pattern == 0:
        n = noise_at(w, (x + y) * 11.0, z * 11.0) - 0.5
        return b[8] + 14 * n, b[9] + 14 * n, b[10] + 14 * n, 0.0, 0.0
    lx, ly = b[6] * (x - b[0]) + b[7] * (y - b[1]), b[6] * (y - b[1]) - b[7] * (x - b[0])
    u = lx + b[3] if face == 2 else (b[3] - lx if face == 3 else (ly + b[4] if face == 1 else b[4] - ly))
    wide, tall = 2 * (b[3] if face >= 2 else b[4]), 2 * b[5]
    up = z - b[2] + b[5]
    columns, floors = max(math.floor(wide / FLOOR_M + 0.5), 1.0), max(math.floor(tall / FLOOR_M + 0.5), 1.0)
    across, down = u / wide * columns, (1 - up / tall) * floors
    side = FACADE_SIDE
    level = level_for(footprint * FACADE_SIDE / FACADE_M, 7)
    side = FACADE_SIDE >> level
    start = (pattern - 1) % 16 * w.facade_size + w.facade_start[level]
    tx, ty = across * 0.25 * side, down * 0.25 * side
    bright = bilinear(w.facade, start, side, side, 2, 0, tx, ty, True) / 205.0
    glass = bilinear(w.facade, start, side, side, 2, 1, tx, ty, True) / 255.0
    soft = max(footprint, 0.02)
    if b[2] - b[5] < 0.1:
        if pattern % 2 == 0 and floors > 2 and down > floors - 1:
            fu, fv = across - math.floor(across), floors - down
            inside = min(max(min(fu - 0.05, 0.95 - fu) * FLOOR_M / soft + 0.5, 0.0), 1.0)
            glass = inside * min(max(min(fv - 0.17, 0.82 - fv) * FLOOR_M / soft + 0.5, 0.0), 1.0)
            bright = 0.72
        bright *= 1 - 0.25 * min(max((0.5 - up) / soft + 0.5, 0.0), 1.0)
    bright *= 1 + 0.16 * min(max((up - tall + 0.4) / soft + 0.5, 0.0), 1.0)
    own = noise_at(w, math.floor(across) * 17.0 + i * 5.0, math.floor(down) * 29.0)
    dim = 0.7 + 0.3 * own
    return (
        b[8] * bright * (1 - glass) + 52 * glass * dim,
        b[9] * bright * (1 - glass) + 64 * glass * dim,
        b[10] * bright * (1 - glass) + 78 * glass * dim,
        glass, glass * min(max((own - 0.66) * 10.0, 0.0), 1.0),
    )  # fmt: skip


@helper
def part_at(w, shape, x, y, z, nx, ny, nz):
    """Return the part drawn on a body at a point of its unit box, seen along the normal in the body's frame."""
    if abs(ny) > 0.58:
        u, v, side = x, 0.5 * (z + 1), 0
    elif nz > 0.42:
        u, v, side = x, 0.5 * (y + 1), 1
    elif nx > 0:
        u, v, side = y, 0.5 * (z + 1), 2
    else:
        u, v, side = y, 0.5 * (z + 1), 3
    column = min(max(int(0.5 * (u + 1) * COLUMNS), 0), COLUMNS - 1)
    row = min(max(int(v * ROWS), 0), ROWS - 1)
    return int(w.livery[shape, side, row, column])
