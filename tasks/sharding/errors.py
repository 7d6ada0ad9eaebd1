"""What can go wrong with a data set."""


class ShardError(RuntimeError):
    """A shard or a recorded clip is missing, incomplete, contradicts itself or is not what its hash says."""
