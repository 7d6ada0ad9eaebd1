"""CARLA 0.9.16's wire protocol: msgpack-rpc with CARLA's result wrapping, and the binary streams."""
