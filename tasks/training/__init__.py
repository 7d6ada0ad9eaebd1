"""Latents -> checkpoints: the DeepSpeed process group, its metric spool, and the folder of a run."""
