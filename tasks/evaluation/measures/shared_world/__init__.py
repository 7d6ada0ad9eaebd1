"""What shows that two agents generate one world: one module per metric, on clips with true depth and instance ids.

Each takes a `WindowTruth` (geometry of one window) and the videos of all rows by name, [A, V, T, h, w, 3] float32 in
[0, 1], and goes through them frame by frame. docs/METRICS.md has the definitions side by side.
"""
