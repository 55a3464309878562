"""Measured numbers that engine profiles are fitted to (calibration, never judges)."""

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
