"""The only place where units are converted; simulated time is integer nanoseconds."""

from __future__ import annotations

from typing import Final

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000


def ns_from_s(seconds: float) -> int:
    """Nearest integer nanosecond of a duration in seconds."""
    return round(seconds * NS_PER_S)


def ns_from_ms(milliseconds: float) -> int:
    """Nearest integer nanosecond of a duration in milliseconds."""
    return round(milliseconds * NS_PER_MS)


def s_from_ns(duration_ns: int) -> float:
    """Seconds in an integer number of nanoseconds."""
    return duration_ns / NS_PER_S


def ms_from_ns(duration_ns: float) -> float:
    """Milliseconds in a number of nanoseconds."""
    return duration_ns / NS_PER_MS
