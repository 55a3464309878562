"""Legends below figures: as many columns as fit."""

from __future__ import annotations

from reports.figures.axes import _columns


def test_columns_fit_the_width() -> None:
    """Three usual entries in a row; ten long ones in two columns; a giant alone."""
    usual = ["chunked prefill, by chunk size in tokens", "layered prefill, by layer"]
    assert _columns([*usual, "joint frontier"]) == 3
    assert (
        _columns([f"policy number {k} by its knob, in tokens" for k in range(10)]) == 2
    )
    assert _columns(["x" * 200, "y" * 200]) == 1
    assert _columns(["a", "b"]) == 2
