"""A checkpoint beside its baselines on the windows of held-out clips: what is generated, and each row's figures."""
