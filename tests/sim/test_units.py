"""Conversions are to the nearest nanosecond, so decimal times are what they say."""

from __future__ import annotations

from fractions import Fraction

from sim.units import ms_from_ns, ns_from_ms, ns_from_s, s_from_ns


def test_decimal_seconds_are_exact() -> None:
    """Museum 20: truncated, one in fifty of these would be a nanosecond early."""
    for milliseconds in range(100_000):
        assert ns_from_s(milliseconds / 1000) == milliseconds * 1_000_000
    assert sum(ns_from_s(0.1) for _ in range(10)) == ns_from_s(1.0)


def test_any_float_goes_to_the_nearest_nanosecond() -> None:
    """By exact arithmetic, a half apart from the product's own rounding."""
    for i in range(1, 5000):
        seconds, exact = i / 7, Fraction(i / 7) * 10**9
        assert abs(ns_from_s(seconds) - exact) <= Fraction(1, 2) + exact / 2**53
        assert abs(ns_from_ms(seconds) - exact / 1000) <= Fraction(1, 2) + exact / 2**53


def test_back_again() -> None:
    assert s_from_ns(1_500_000_000) == 1.5
    assert ms_from_ns(1_500_000) == 1.5
