"""The recording layer's errors."""


class RecordingError(RuntimeError):
    """A recording that failed; it may succeed on a fresh server."""


class ServerFault(RecordingError):
    """A server that failed while it recorded: no fault of the recording."""


class GateError(RecordingError):
    """A recording that was made and is not good enough."""
