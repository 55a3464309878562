"""Measured cases: what profiles are fitted to, and what judges them; never both."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def _document() -> dict[str, Any]:
    text = resources.files("calibration").joinpath("data/measured.toml").read_text()
    return tomllib.loads(text)


def fit_cases() -> dict[str, Any]:
    """Numbers that profiles may be fitted to, by case (calibration)."""
    cases: dict[str, Any] = _document()["fit"]
    return cases


def held_out_cases() -> list[dict[str, Any]]:
    """Serving cases that no constant of any profile has seen (validation)."""
    cases: list[dict[str, Any]] = _document()["validation"]
    return cases
