"""What can go wrong with a run."""


class RunError(RuntimeError):
    """A run, checkpoint or training that is missing, damaged or cannot go on: what, and what to do."""
