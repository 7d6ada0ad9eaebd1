"""Held-out clips + checkpoint -> videos, metrics, report (paper, section 5)."""
