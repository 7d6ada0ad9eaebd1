"""The paper's section 4: camera trajectories as raymaps, four-view mosaics, cross-agent attention over CogVideoX."""
