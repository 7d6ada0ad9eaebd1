"""The one error that clients see."""


class RpcError(RuntimeError):
    """A request that cannot be served; its text, one sentence, reaches the client as a RuntimeError."""
