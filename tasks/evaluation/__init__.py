"""Held-out clips and a checkpoint -> videos, metrics and a report (paper, section 5)."""
