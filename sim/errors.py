"""The two ways a run can fail: the user's input, or a broken promise inside."""

from __future__ import annotations


class ServescopeError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigError(ServescopeError):
    """Bad input: one line naming file, key, value and what is allowed (exit 2)."""


class SimulationError(ServescopeError):
    """A scheduler or the engine broke an invariant: no result to trust (exit 1)."""
