"""The Prefect flows: collect a data set, train on it, compare."""
