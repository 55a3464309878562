"""Timings that are printed, not judged: run each with ``python -m``."""
