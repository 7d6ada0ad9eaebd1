"""The steps of the flows, one package per step, in the order of the data."""
