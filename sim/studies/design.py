"""Designs: which combinations of values a study runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt

from sim.config_errors import ConfigKeyError
from sim.studies.axes import Axis, Listed
from workloads.streams import stream

MAX_POINTS: Final = 100_000

Settings = dict[str, object]
"""Values of the varied keys at one point, by dotted key."""
Axes = Mapping[str, Axis]
Shares = npt.NDArray[np.float64]


def grid(axes: Axes, samples: int, seed: int) -> list[Settings]:
    """Every combination, the last axis fastest; ``samples`` and ``seed`` are unused.

    Raises:
        ConfigKeyError: If there are too many, or a range has neither step nor num.
    """
    del samples, seed
    values = {key: _grid_values(key, axis) for key, axis in axes.items()}
    count = prod(map(len, values.values()))
    if count > MAX_POINTS:
        raise ConfigKeyError("vary", count, f"a grid has at most {MAX_POINTS} points")
    return [dict(zip(values, row, strict=True)) for row in product(*values.values())]


def listed(axes: Axes, samples: int, seed: int) -> list[Settings]:
    """Values at the same place of each list belong together; one value is for all.

    Raises:
        ConfigKeyError: If lists differ in length.
    """
    del samples, seed
    values = {key: _grid_values(key, axis) for key, axis in axes.items()}
    length = max(map(len, values.values()))
    for key, column in values.items():
        if len(column) not in (1, length):
            raise ConfigKeyError(
                key, len(column), f"design list: must hold 1 or {length} values"
            )
    return [
        {key: v[i if len(v) > 1 else 0] for key, v in values.items()}
        for i in range(length)
    ]


def random(axes: Axes, samples: int, seed: int) -> list[Settings]:
    """Independent uniform draws; each key has a stream of its own."""

    def shares(key: str) -> Shares:
        return stream(seed, f"design/{key}").random(samples)

    return _drawn(axes, samples, shares)


def latin_hypercube(axes: Axes, samples: int, seed: int) -> list[Settings]:
    """One draw in each of ``samples`` equal strata of every axis, shuffled.

    McKay, Beckman and Conover, Technometrics 21 (1979) 239-245.
    """

    def shares(key: str) -> Shares:
        draws = stream(seed, f"design/{key}")
        return (draws.permutation(samples) + draws.random(samples)) / samples

    return _drawn(axes, samples, shares)


Design = Callable[[Axes, int, int], list[Settings]]
DESIGNS: Final[Mapping[str, Design]] = {
    "grid": grid,
    "list": listed,
    "random": random,
    "latin-hypercube": latin_hypercube,
}
"""Designs by name; those in ``SAMPLED`` take a number of samples and a seed."""
SAMPLED: Final = ("random", "latin-hypercube")


def _drawn(axes: Axes, samples: int, shares: Callable[[str], Shares]) -> list[Settings]:
    columns = {
        key: [axis.at(share) for share in shares(key).tolist()]
        for key, axis in axes.items()
    }
    return [{key: column[i] for key, column in columns.items()} for i in range(samples)]


def _grid_values(key: str, axis: Axis) -> tuple[object, ...]:
    if isinstance(axis, Listed):
        return axis.values
    if axis.step is None and axis.num is None:
        raise ConfigKeyError(
            key, f"{axis.low}..{axis.high}", "a range in a grid needs step or num"
        )
    return axis.grid()
