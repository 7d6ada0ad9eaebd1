"""An embedded CARLA: a server that the unmodified `carla` 0.9.16 client drives. Imports nothing else of the project."""
