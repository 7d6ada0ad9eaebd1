"""A run: its folder, its checkpoints' records, its metric spool, and what MLflow is to be given of it."""
