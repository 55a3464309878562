"""Costs that were computed once are kept, but not without bound."""

from __future__ import annotations

from typing import Any, Final

MOST_KEPT: Final = 1 << 15
"""Costs kept of one kind; beyond, all are forgotten, so that memory stays bounded."""


def bound(kept: dict[Any, Any]) -> None:
    """Forget everything once there is too much."""
    if len(kept) >= MOST_KEPT:
        kept.clear()
