"""How much of a run is kept."""

from __future__ import annotations

from enum import StrEnum


class Recording(StrEnum):
    """From least to most; each level keeps what those before it keep.

    Memory per request is 100 bytes at every level, per iteration 8 bytes, and with
    ``ITERATIONS`` about 150.
    """

    SUMMARY = "summary"
    REQUESTS = "requests"
    ITERATIONS = "iterations"

    @property
    def requests(self) -> bool:
        """Whether there is a row per request."""
        return self is not Recording.SUMMARY

    @property
    def iterations(self) -> bool:
        """Whether there are time series, steps and a row per iteration."""
        return self is Recording.ITERATIONS
