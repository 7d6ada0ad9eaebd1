"""Plan -> clip pairs, on a Ray pool of CARLA servers (paper, section 3)."""
