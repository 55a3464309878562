"""Fused MoE layer: the table, corrected for the experts really touched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.kernels.interpolate import LogLogCurve
from calibration.kernels.moe_roofline import BYTES_PER_EXPERT_WEIGHT, MoeSlice
from calibration.kernels.roofline_file import fitted_roofline, synthetic_loads
from calibration.tables import KernelTables
from sim.kernel_times import Timed

Float = npt.NDArray[np.float64]
TABLE_LAW = "power_law_1.2"
"""Routing of the rows used: ``balanced`` rows touch up to twice the experts of real
decode batches."""


@dataclass(frozen=True, slots=True)
class Inefficiency:
    """An engine's MoE kernel against the table's: factors on the two roofline terms.

    They hold for batches of more tokens than experts, where they were measured:
    Triton's default configuration switches to larger tiles there (vLLM,
    ``get_default_config``), and smaller batches run as the table says.
    """

    memory: float = 1.0
    compute: float = 1.0


class Experts:
    """Time of the routed experts of one layer on the hottest rank.

    Inside the profiled token range: table time times roofline(actual load) /
    roofline(synthetic load of the table's row). Beyond it, or for a shape nobody
    profiled, the roofline of the (nearest) slice, counted as extrapolated.

    Args:
        tables: Profiled tables of the GPU.
        table: "moe", or "moe_untuned" (Triton without a tuned configuration).
        dtype: Expert weight format, "bfloat16", "fp8" or "mxfp4".
        moe_slice: Shape and split.
        inefficiency: Engine factors on the roofline terms.

    Raises:
        ConfigError: If no MoE kernel of this format was profiled on the GPU.
    """

    def __init__(
        self,
        tables: KernelTables,
        table: str,
        dtype: str,
        moe_slice: MoeSlice,
        inefficiency: Inefficiency,
    ) -> None:
        self._slice = moe_slice
        self._width = BYTES_PER_EXPERT_WEIGHT[dtype]
        self._inefficiency = inefficiency
        exact, self._roofline = fitted_roofline(tables, table, dtype, moe_slice)
        rows = tables.select(
            table,
            dtype=dtype,
            distribution=TABLE_LAW,
            hidden_size=moe_slice.hidden_size,
            inter_size=moe_slice.inter_size,
            topk=moe_slice.topk,
            num_experts=moe_slice.num_experts,
            moe_tp_size=moe_slice.moe_tp_size,
            moe_ep_size=moe_slice.moe_ep_size,
        )
        self._curve: LogLogCurve | None = None
        if exact and rows["num_tokens"].size:
            tokens = rows["num_tokens"].astype(np.float64)
            self._curve = LogLogCurve(tokens, rows["latency_ns"].astype(np.float64))
            self._last = float(tokens[-1])
            self._loads = synthetic_loads(
                tables.data_dir, moe_slice, self._roofline.tile
            )
        self._memo: dict[tuple[int, float], Timed] = {}

    def at(self, tokens: int, touched: float) -> Timed:
        """Time for ``tokens`` tokens (all ranks) that touch ``touched`` experts."""
        key = (tokens, touched)
        timed = self._memo.get(key)
        if timed is None:
            timed = self._memo[key] = self._compute(tokens, touched)
        return timed

    def on_ranks(self, tokens: int, touched: Float, pairs: Float) -> tuple[Float, bool]:
        """Times in ns of ranks with their own loads, and whether they extrapolate.

        The table's time for ``tokens`` at its own hottest rank, times roofline(the
        rank's load) / roofline(the table's); every touched expert pads as many rows as
        in the table.

        Args:
            tokens: Tokens of all ranks.
            touched: Experts each rank touches, any shape.
            pairs: Token-expert pairs of each rank, same shape.
        """
        large = tokens > self._slice.num_experts
        factors = self._inefficiency if large else Inefficiency()
        if self._curve is None:
            return self._many(touched, pairs, pairs, factors), True
        inside = min(float(tokens), self._last)
        base_touched, padded, base_pairs = self._loads.at(inside)
        base = self._bound(base_touched, padded, base_pairs)
        padding = max(padded - base_pairs, 0.0) / max(base_touched, 1e-9)
        rows = pairs + touched * padding
        actual = self._many(touched, rows, pairs, factors)
        times: Float = self._curve.at(inside).ns * actual / base
        return times, tokens > self._last

    def _many(
        self, touched: Float, padded: Float, pairs: Float, factors: Inefficiency
    ) -> Float:
        per_expert = self._slice.weight_bytes(1.0, self._width)
        return self._roofline.at_many(
            touched * per_expert,
            padded * self._slice.flops(1.0),
            pairs * self._slice.activation_bytes(1.0),
            memory=factors.memory,
            compute=factors.compute,
        )

    def work(self, tokens: int, touched: float) -> tuple[float, float]:
        """HBM bytes of weights and FLOPs on one rank, at even load."""
        ranks = self._slice.moe_ep_size
        pairs = tokens * self._slice.topk / ranks
        weights = self._slice.weight_bytes(touched / ranks, self._width)
        return weights, self._slice.flops(pairs)

    def _compute(self, tokens: int, touched: float) -> Timed:
        if self._curve is None:
            pairs = tokens * self._slice.topk / self._slice.moe_ep_size
            ns = round(self._actual(tokens, pairs, pairs, 0.0, touched))
            return Timed(ns, ns)
        inside = min(float(tokens), self._last)
        base_touched, padded, pairs = self._loads.at(inside)
        base = self._bound(base_touched, padded, pairs)
        grown = tokens / inside
        actual = self._actual(
            tokens, pairs * grown, padded * grown, base_touched, touched
        )
        ns = round(self._curve.at(inside).ns * actual / base)
        return Timed(ns, ns if tokens > self._last else 0)

    def _actual(
        self,
        tokens: int,
        pairs: float,
        padded: float,
        base_touched: float,
        touched: float,
    ) -> float:
        """Roofline for the touched experts; each pads half a tile on average."""
        local = touched / self._slice.moe_ep_size
        tile = self._roofline.tile
        rows = max(padded + (local - base_touched) * tile / 2, pairs)
        large = tokens > self._slice.num_experts
        factors = self._inefficiency if large else Inefficiency()
        return self._bound(local, rows, pairs, factors)

    def _bound(
        self,
        touched: float,
        padded: float,
        pairs: float,
        factors: Inefficiency = Inefficiency(),
    ) -> float:
        return self._roofline.at(
            self._slice.weight_bytes(touched, self._width),
            self._slice.flops(padded),
            self._slice.activation_bytes(pairs),
            memory=factors.memory,
            compute=factors.compute,
        )
