"""What a study varies: the values of one key, or the range they are drawn from."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sim.config_errors import ConfigKeyError

LINEAR: Final = "linear"
LOG: Final = "log"
MAX_VALUES: Final = 10_000
_RANGE_KEYS: Final = ("from", "to", "step", "num", "scale")


@dataclass(frozen=True, slots=True)
class Listed:
    """Values written out, in their order."""

    values: tuple[object, ...]

    def at(self, share: float) -> object:
        """The value at a share in [0, 1) of the way through the list."""
        return self.values[int(share * len(self.values))]


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers between two ends; integers if both ends are.

    Attributes:
        low: First end.
        high: Last end, above the first.
        scale: "linear" or "log": in which measure equal shares are equally wide.
        step: Distance of the values of a grid; exact for decimals.
        num: How many values a grid takes instead, ends included.
    """

    low: float
    high: float
    scale: str = LINEAR
    step: float | None = None
    num: int | None = None

    @property
    def whole(self) -> bool:
        """Whether the values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> float:
        """The value at a share in [0, 1) of the way from low to high."""
        if self.whole and self.scale == LINEAR:
            # every integer, the ends too, gets the same share
            return min(self.low + int(share * (self.high - self.low + 1)), self.high)
        if self.scale == LOG:
            value: float = self.low * (self.high / self.low) ** share
        else:
            value = self.low + share * (self.high - self.low)
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else value

    def grid(self) -> tuple[float, ...]:
        """The values of a grid, ends included where the step meets them."""
        if self.step is not None:
            low, step = Decimal(str(self.low)), Decimal(str(self.step))
            count = int((Decimal(str(self.high)) - low) / step) + 1
            exact = [low + step * k for k in range(count)]
            integral = self.whole and isinstance(self.step, int)
            return tuple(int(v) if integral else float(v) for v in exact)
        count = self.num or 2
        shares = (k / (count - 1) for k in range(count))
        return tuple(dict.fromkeys(self._spaced(share) for share in shares))

    def _spaced(self, share: float) -> float:
        """The value at a share, both ends at their place (unlike equal shares)."""
        if self.whole and self.scale == LINEAR:
            return round(self.low + share * (self.high - self.low))
        return self.at(share)


Axis = Listed | Range


def parse_axis(key: str, value: object) -> Axis:
    """The axis a study file gives for a key.

    Args:
        key: Dotted configuration key, for errors.
        value: A list of values, one value, or a table
            ``{from, to, step | num, scale}``.

    Raises:
        ConfigKeyError: If it is none of these.
    """
    if isinstance(value, Mapping):
        return _parse_range(key, value)
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ConfigKeyError(key, value, "must hold at least one value")
    if any(isinstance(item, list | Mapping) for item in values):
        raise ConfigKeyError(key, value, "must be a flat list of values")
    return Listed(tuple(values))


def _parse_range(key: str, table: Mapping[str, Any]) -> Range:
    unknown = [name for name in table if name not in _RANGE_KEYS]
    if unknown or "from" not in table or "to" not in table:
        raise ConfigKeyError(
            key,
            table,
            "must be a list of values or { from = A, to = B } with step or num, and"
            ' scale = "linear" or "log"'
            + (f"; unknown: {', '.join(unknown)}" if unknown else ""),
        )
    low, high = table["from"], table["to"]
    scale, step, num = table.get("scale", LINEAR), table.get("step"), table.get("num")
    if not (_is_number(low) and _is_number(high) and low < high):
        raise ConfigKeyError(key, low, f"from must be a number below to ({high})")
    if scale not in (LINEAR, LOG) or (scale == LOG and low <= 0):
        raise ConfigKeyError(
            key, scale, 'scale must be "linear", or "log" with from > 0'
        )
    if step is not None and not (_is_number(step) and step > 0):
        raise ConfigKeyError(key, step, "step must be a number > 0")
    if step is not None and (num is not None or scale == LOG):
        raise ConfigKeyError(key, step, "step goes with neither num nor a log scale")
    if step is not None and (high - low) / step >= MAX_VALUES:
        raise ConfigKeyError(key, step, f"must give at most {MAX_VALUES} values")
    if num is not None and not (type(num) is int and 2 <= num <= MAX_VALUES):
        raise ConfigKeyError(key, num, f"num must be an integer in 2..{MAX_VALUES}")
    return Range(low, high, scale, step, num)


def _is_number(value: object) -> bool:
    """Finite; an integer of TOML may be too large for a float."""
    if isinstance(value, float):
        return math.isfinite(value)
    return type(value) is int and abs(value) < sys.maxsize
