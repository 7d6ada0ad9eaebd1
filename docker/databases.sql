-- docker/compose.team.yaml: PostgreSQL runs this once, when its volume is empty. Prefect's database is the image's own.
CREATE DATABASE mlflow;
