"""The bare kernels of latent attention, from tables of kernels or of whole modules.

A *module* row times a whole latent-attention block of DeepSeek-V3: norms, projections,
attention, output. The projections of a batch run once over all of its rows, prompts and
decodes together, and other models have other ones, so that only what is left of a row
after its projections is kept here; added to the same projections again it gives the row
back. SGLang's tables hold the attention kernels alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calibration.hardware import Gpu
from calibration.kernels.gemm import Gemms
from calibration.kernels.interpolate import LogLogGrid, isotonic
from calibration.kernels.latent_heads import (
    PROFILED,
    PROFILED_HIDDEN,
    LatentHeads,
    absorbed_chunk_tokens,
)
from calibration.latent_shape import LatentShape
from calibration.tables import KernelTables
from sim.errors import ConfigError
from sim.kernel_times import Timed

Rows = dict[str, npt.NDArray[np.int64]]
"""Columns of a table."""


class BareKernel:
    """Time of one layer's attention kernels by batch size and length.

    Outside the profiled lengths or batches, and where the model's widths or heads are
    not those of a profiled row, times follow FLOPs and bytes and count as extrapolated.

    Args:
        tables: Profiled tables of the GPU.
        gpu: The GPU.
        gemms: The products that module rows contain, in their format.
        shape: Heads on this GPU.
        phase: "prefill" or "decode".

    Raises:
        ConfigError: If no such kernel was profiled on the GPU.
    """

    def __init__(
        self,
        tables: KernelTables,
        gpu: Gpu,
        gemms: Gemms,
        shape: LatentHeads,
        phase: str,
    ) -> None:
        module, rows = _rows(tables, shape, phase)
        heads = _nearest(rows["num_heads"], shape.num_heads)
        rows = {key: column[rows["num_heads"] == heads] for key, column in rows.items()}
        as_profiled = LatentHeads(
            latent=PROFILED, num_heads=heads, dtype=shape.dtype, kv_dtype=shape.kv_dtype
        )
        length = "isl" if phase == "prefill" else "step"
        batches, lengths = rows["batch_size"], rows[length].astype(np.float64)
        longest = absorbed_chunk_tokens(tables, shape.kv_dtype)
        expanded = (rows[length] > longest) & (phase == "prefill")
        times = _smoothed(rows["latency_ns"], batches, lengths, expanded)
        rows_run = batches * rows[length] if phase == "prefill" else batches
        if module:
            times -= _projections(gemms, heads, rows_run, expanded)
        else:
            absorbing = _absorption(tables, heads, rows_run)
            times += np.where(expanded, 0.0, absorbing)
            lengths += phase == "decode"  # its step leaves the new token out
        floor = _floor(gpu, as_profiled, phase, batches, lengths)
        self._grid = _grid(batches, lengths, np.maximum(times, floor))
        self.longest = int(lengths[batches == 1].max())
        self._ratio = _cost(gpu, shape, phase) / _cost(gpu, as_profiled, phase)
        self._inside = heads == shape.num_heads and _same_kernel(shape.latent)

    def at(self, batch: int, length: float) -> Timed:
        """Time of ``batch`` requests of ``length`` tokens each."""
        timed = self._grid.at(batch, length)
        ns = round(timed.ns * self._ratio)
        return Timed(ns, 0 if self._inside and not timed.extrapolated_ns else ns)

    def along(
        self, batch: int, lengths: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """:meth:`at` over increasing lengths: ns, and which are extrapolated."""
        ns, outside = self._grid.along(batch, lengths)
        if self._ratio != 1.0:
            ns = np.rint(ns * self._ratio).astype(np.int64)
        return ns, outside | (not self._inside)


def _rows(tables: KernelTables, shape: LatentHeads, phase: str) -> tuple[bool, Rows]:
    """Whether rows are of modules, and the rows of the shape's formats."""
    formats = {"attn_dtype": "bfloat16", "kv_dtype": shape.kv_dtype}
    module, kernel = f"mla_{phase}_module", f"mla_{phase}"
    if module in tables.names:
        rows = tables.select(module, dtype=shape.dtype, **formats)
        if rows["latency_ns"].size:
            return True, rows
    elif kernel in tables.names:
        rows = tables.select(kernel, **formats)
        if rows["latency_ns"].size:
            return False, rows
    else:
        raise ConfigError(
            f"{tables.gpu}: no kernel of latent attention (MLA) was profiled on this"
            f" GPU with {tables.framework}"
        )
    raise ConfigError(
        f"{tables.gpu}: no {phase} kernel of latent attention (MLA) was profiled on"
        f" this GPU for {shape.dtype} weights and a {shape.kv_dtype} KV cache"
    )


def _nearest(heads: npt.NDArray[np.int64], wanted: int) -> int:
    known = np.unique(heads)
    return int(known[np.argmin(np.abs(np.log(known / wanted)))])


def _smoothed(
    times_ns: npt.NDArray[np.int64],
    batches: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.float64],
    expanded: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Times that do not fall with the length of one batch size and way to compute."""
    smoothed = times_ns.astype(np.float64)
    for batch in np.unique(batches):
        for way in (False, True):
            chosen = np.flatnonzero((batches == batch) & (expanded == way))
            chosen = chosen[np.argsort(lengths[chosen])]
            smoothed[chosen] = isotonic(smoothed[chosen])
    return smoothed


def _projections(
    gemms: Gemms,
    heads: int,
    rows: npt.NDArray[np.int64],
    expanded: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Time of the products a module row contains."""
    products = PROFILED.products(PROFILED_HIDDEN, heads)
    expansion = PROFILED.expansion(heads)
    return np.array(
        [
            sum(gemms.at(m, n, k).ns for n, k in products)
            + (gemms.at(m, *expansion).ns if expands else 0)
            for m, expands in zip(rows.tolist(), expanded.tolist(), strict=True)
        ],
        dtype=np.float64,
    )


def _absorption(
    tables: KernelTables, heads: int, rows_run: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Time of the products that take queries to latents and outputs back.

    In bfloat16 whatever the checkpoint: SGLang dequantises block-scaled weights for
    them (``SGLANG_USE_DEEPGEMM_BMM`` is off by default).
    """
    total = np.zeros(rows_run.size)
    for name in ("pre", "post"):
        rows = tables.select("mla_bmm", dtype="bfloat16", num_heads=heads, op_name=name)
        tokens, times = rows["num_tokens"], rows["latency_ns"]
        beyond = np.maximum(rows_run / tokens[-1], 1.0)
        total += np.interp(rows_run, tokens, times) * beyond
    return total


def _floor(
    gpu: Gpu,
    shape: LatentHeads,
    phase: str,
    batches: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """The least time (ns) attention can take, at the GPU's peaks."""
    prefill = phase == "prefill"
    pairs = batches * (lengths * (lengths + 1) / 2 if prefill else lengths)
    flops = pairs * shape.num_heads * shape.latent.expanded_pair_flops
    hbm_bytes = batches * lengths * shape.cache_bytes
    return 1e9 * np.maximum(
        flops / gpu.flops("bfloat16"), hbm_bytes / gpu.hbm_bandwidth_bytes_per_s
    )


def _grid(
    batches: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.float64],
    times_ns: npt.NDArray[np.float64],
) -> LogLogGrid:
    rows, i = np.unique(batches, return_inverse=True)
    columns, j = np.unique(lengths, return_inverse=True)
    grid = np.full((rows.size, columns.size), np.nan)
    grid[i, j] = times_ns
    return LogLogGrid(rows.astype(np.float64), columns, grid, smooth=False)


def _cost(gpu: Gpu, shape: LatentHeads, phase: str) -> float:
    """Time of one query-key pair at the GPU's peaks, in any unit."""
    if phase == "prefill":
        return float(shape.num_heads * shape.latent.expanded_pair_flops)
    _, flops = shape.absorbed(0, 0, 1)
    memory = shape.cache_bytes / gpu.hbm_bandwidth_bytes_per_s
    return max(flops / gpu.flops("bfloat16"), memory)


def _same_kernel(latent: LatentShape) -> bool:
    """Whether the widths the attention kernels see are the profiled ones."""
    seen = (latent.kv_lora_rank, latent.nope_dim, latent.rope_dim, latent.value_dim)
    known = PROFILED
    return seen == (known.kv_lora_rank, known.nope_dim, known.rope_dim, known.value_dim)
