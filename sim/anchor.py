"""Fit two bounded factors of a profile to a user's own step times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from calibration.anchor_file import HOST_BOUNDS, KERNEL_BOUNDS, Anchor
from sim.build import Machine, build_machine
from sim.config import Config
from sim.config_errors import clip, one_line
from sim.errors import ConfigError
from sim.input_csv import csv_rows
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.units import NS_PER_MS

COLUMNS: Final = (
    "decoding",
    "context_tokens",
    "prefill_tokens",
    "prefix_tokens",
    "measured_ms",
)
_MIN_ROWS: Final = 3
_MAX_ROWS: Final = 10_000
_MAX_DIGITS: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One measured iteration through all layers.

    Attributes:
        decoding: Decoding requests.
        context_tokens: KV tokens they attend to together.
        prefill_tokens: Prompt tokens of one chunk, 0 for none.
        prefix_tokens: Tokens of that prompt already computed.
        measured_ms: Duration.
    """

    decoding: int
    context_tokens: int
    prefill_tokens: int
    prefix_tokens: int
    measured_ms: float


@dataclass(frozen=True, slots=True)
class AnchorFit:
    """The factors, and each step's prediction with and without them (ms)."""

    anchor: Anchor
    before_ms: tuple[float, ...]
    after_ms: tuple[float, ...]


def fit_anchor(config: Config, steps: Sequence[Step], source: str) -> AnchorFit:
    """Least squares of measured = kernel_factor * kernels + host_factor * host.

    Both factors are bounded; the leave-one-out error predicts every step by factors
    fitted to the others. A profile without host time gets a kernel factor only.

    Args:
        config: The measured deployment, with the profile to start from.
        steps: At least three measured steps.
        source: What to call them.
    """
    machine = build_machine(config)
    parts = np.array([_parts_ms(machine, step) for step in steps])
    measured = np.array([step.measured_ms for step in steps])
    factors = _bounded(parts, measured)
    errors = []
    for i in range(len(steps)):
        others = np.arange(len(steps)) != i
        predicted = float(parts[i] @ _bounded(parts[others], measured[others]))
        errors.append(abs(predicted / measured[i] - 1.0))
    anchor = Anchor(
        base=config.calibration.profile,
        kernel_factor=round(float(factors[0]), 4),
        host_factor=round(float(factors[1]), 4),
        fitted_to=source,
        leave_one_out_error=round(float(np.mean(errors)), 4),
    )
    return AnchorFit(
        anchor, tuple(parts.sum(axis=1).tolist()), tuple((parts @ factors).tolist())
    )


def read_steps(path: Path) -> list[Step]:
    """Read measured steps from a CSV file with the header ``COLUMNS``.

    Raises:
        ConfigError: One line: the file, line, column, value and what is allowed.
    """
    where = one_line(str(path))
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    if sorted(header) != sorted(COLUMNS):
        raise ConfigError(f"{where}: the columns must be {', '.join(COLUMNS)}")
    steps: list[Step] = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise ConfigError(
                f"{where}:{line}: {len(cells)} cells: must be {len(header)}"
            )
        steps.append(_step(f"{where}:{line}", dict(zip(header, cells, strict=True))))
        if len(steps) > _MAX_ROWS:
            break
    if not _MIN_ROWS <= len(steps) <= _MAX_ROWS:
        raise ConfigError(
            f"{where}: {len(steps)} steps: must be {_MIN_ROWS} to {_MAX_ROWS}"
        )
    return steps


def _step(where: str, row: dict[str, str]) -> Step:
    counts = {}
    for column in COLUMNS[:-1]:
        text = row[column]
        if not (text.isdecimal() and text.isascii() and len(text) <= _MAX_DIGITS):
            raise ConfigError(
                f"{where}: {column} = {clip(repr(text))}: must be an integer >= 0 of"
                f" at most {_MAX_DIGITS} digits"
            )
        counts[column] = int(text)
    try:
        measured_ms = float(row["measured_ms"])
    except ValueError:
        measured_ms = -1.0
    if not 0 < measured_ms <= 1e6:
        raise ConfigError(
            f"{where}: measured_ms = {clip(repr(row['measured_ms']))}: must be a"
            " number > 0 and <= 1e6"
        )
    if counts["decoding"] + counts["prefill_tokens"] == 0:
        raise ConfigError(f"{where}: decoding = 0 and prefill_tokens = 0: no work")
    return Step(**counts, measured_ms=measured_ms)


def _parts_ms(machine: Machine, step: Step) -> tuple[float, float]:
    """Kernel and host time of a step under the profile as it is."""
    chunks: tuple[PrefillChunk, ...] = ()
    if step.prefill_tokens:
        chunks = (PrefillChunk(0, step.prefix_tokens, step.prefill_tokens),)
    plan = StepPlan((LayerSpan(0, machine.model.num_layers, chunks),))
    context = max(step.context_tokens, step.decoding)
    kernels_ns = machine.pricer.kernel_ns(plan, step.decoding, context)
    total_ns = machine.pricer.price(plan, step.decoding, context).duration_ns
    return kernels_ns / NS_PER_MS, (total_ns - kernels_ns) / NS_PER_MS


def _bounded(
    parts: npt.NDArray[np.float64], measured: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Two-variable least squares in a box: the free optimum, or the best edge."""
    a, b = parts / measured[:, None], np.ones(len(measured))
    low, high = np.array([KERNEL_BOUNDS, HOST_BOUNDS]).T
    if not a[:, 1].any():
        kernel = float(a[:, 0] @ b / (a[:, 0] @ a[:, 0]))
        return np.array([min(max(kernel, low[0]), high[0]), 1.0])
    free, *_ = np.linalg.lstsq(a, b, rcond=None)
    if ((free >= low) & (free <= high)).all():
        return np.asarray(free)
    candidates = []
    for fixed in (0, 1):
        other = 1 - fixed
        for bound in (low[fixed], high[fixed]):
            rest = b - a[:, fixed] * bound
            best = float(a[:, other] @ rest / (a[:, other] @ a[:, other]))
            point = np.empty(2)
            point[fixed] = bound
            point[other] = min(max(best, low[other]), high[other])
            candidates.append(point)
    return min(candidates, key=lambda p: float(((a @ p - b) ** 2).sum()))
