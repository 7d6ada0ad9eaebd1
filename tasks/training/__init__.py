"""Latents -> checkpoints: the DeepSpeed process group, and what is asked before it starts."""
