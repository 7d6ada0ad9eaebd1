"""Scenes with a fact that only one agent sees at the start: does it turn up in the other agent's video?"""
