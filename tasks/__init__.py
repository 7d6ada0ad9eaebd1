"""The steps of the flows, one package a step, in the order of the data."""
