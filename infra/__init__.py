"""What ShareVerse runs on: CARLA servers, the embedded CARLA, Ray, MLflow, the local services, files on disk."""
