"""Attention: prefill with a cached prefix by work and span, decode from the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from calibration.hardware import Gpu
from calibration.kernels.interpolate import LogLogCurve, LogLogGrid
from calibration.kernels.what_if import Work
from calibration.kernels.work_span import WorkSpan
from calibration.tables import KernelTables
from sim.errors import ConfigError
from sim.kernel_times import Timed
from sim.model_work import attended_pairs

_TIMES_HEADS: Final = (2, 4, 8)
_Q_BYTES = 2  # queries and outputs are bfloat16 in every profiled row


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """Attention of one layer on one GPU of a tensor-parallel group.

    Attributes:
        num_heads: Query heads on this GPU.
        num_kv_heads: KV heads on this GPU, >= 1.
        head_dim: Head dimension.
        window: Sliding window in tokens, 0 for full attention.
        kv_dtype: "bfloat16" or "fp8".
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int
    kv_dtype: str

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token on this GPU."""
        width = 1 if self.kv_dtype == "fp8" else 2
        return 2 * self.num_kv_heads * self.head_dim * width


def _profiled(
    tables: KernelTables, table: str, shape: AttentionShape
) -> tuple[dict[str, npt.NDArray[np.int64]], float]:
    """Rows of the profiled head count nearest to the shape, and the work ratio."""
    rows, shape = _of_kv_heads(tables, table, shape)
    if not rows["latency_ns"].size:
        raise ConfigError(
            f"{tables.gpu}: no {table} kernel was profiled for"
            f" {shape.num_kv_heads} KV heads of {shape.head_dim} per GPU,"
            f" {shape.kv_dtype} KV cache, window {shape.window}"
        )
    heads = np.unique(rows["num_heads"])
    nearest = int(heads[np.argmin(np.abs(np.log(heads / shape.num_heads)))])
    chosen = rows["num_heads"] == nearest
    return {k: v[chosen] for k, v in rows.items()}, shape.num_heads / nearest


def _of_kv_heads(
    tables: KernelTables, table: str, shape: AttentionShape
) -> tuple[dict[str, npt.NDArray[np.int64]], AttentionShape]:
    """Rows of the shape's KV heads, or of fewer by whose batches the rest are reckoned.

    Kernels work on (request, KV head) pairs one like the other, so that four times the
    heads take what four times the requests do: on average 1 to 7 % off where the tables
    of SGLang and TensorRT-LLM have both.

    Returns:
        The rows, batches as of the shape's heads, and the heads that they are of.
    """
    known: dict[str, int | str] = {
        "head_dim": shape.head_dim,
        "window_size": shape.window,
        "kv_dtype": shape.kv_dtype,
    }
    rows = tables.select(table, num_key_value_heads=shape.num_kv_heads, **known)
    for times in _TIMES_HEADS:
        if rows["latency_ns"].size or shape.num_kv_heads % times:
            break
        fewer = shape.num_kv_heads // times
        found = tables.select(table, num_key_value_heads=fewer, **known)
        whole = found["batch_size"] % times == 0
        if whole.any():
            rows = {key: column[whole] for key, column in found.items()}
            rows["batch_size"] = rows["batch_size"] // times
            return rows, replace(
                shape, num_heads=shape.num_heads // times, num_kv_heads=fewer
            )
    return rows, shape


class PrefillAttention:
    """Attention of prompt chunks, by a work/span bound scaled to the table.

    The tables hold no cached prefix. A chunk of s tokens after a prefix of P costs

        t0 + ((work)^q + (span)^q + (traffic)^q)^(1/q),

    work = FLOPs / (R * peak), span = tau * (P + s), the serial time of one thread
    block over its keys, traffic = bytes / (b * HBM bandwidth); the parameters per GPU
    are fitted to no-prefix rows only. The result is scaled by table / formula at
    (s, P = 0), so that it equals the table there. Chunks of one iteration share one
    kernel: work and traffic add, the span is the longest.

    Args:
        tables: Profiled tables of the GPU.
        gpu: The GPU, with its work/span parameters.
        shape: Heads on this GPU.

    Raises:
        ConfigError: If no such attention was profiled on the GPU.
    """

    def __init__(self, tables: KernelTables, gpu: Gpu, shape: AttentionShape) -> None:
        rows, self._heads_ratio = _profiled(tables, "prefill_attention", shape)
        single = rows["batch_size"] == 1
        if not single.any():
            raise ConfigError(
                f"{tables.gpu}: prefill_attention: no batch_size = 1 was profiled for"
                f" {shape.num_kv_heads} KV heads of {shape.head_dim}; needed: single"
                " prompts"
            )
        order = np.argsort(rows["isl"][single])
        sizes = rows["isl"][single][order].astype(np.float64)
        self._table = LogLogCurve(
            sizes, rows["latency_ns"][single][order].astype(np.float64)
        )
        self._longest = int(sizes[-1])
        self._window = shape.window
        self._row_bytes = 2 * shape.num_heads * shape.head_dim * _Q_BYTES
        self._key_bytes = shape.kv_bytes_per_token
        self._pair_flops = 4 * shape.num_heads * shape.head_dim
        self._span = WorkSpan(gpu)
        self._scales: dict[int, tuple[float, bool]] = {}

    def at(self, chunks: Sequence[tuple[int, int]]) -> Timed:
        """Time of one layer for (prefix, tokens) chunks."""
        work = traffic = scaled = 0.0
        span, outside = 0.0, False
        for prefix, tokens in chunks:
            chunk_work, chunk_span, chunk_traffic = self._bounds(prefix, tokens)
            scale, beyond = self._scale(tokens)
            work += chunk_work
            traffic += chunk_traffic
            span = max(span, chunk_span)
            scaled += chunk_work * scale
            outside = outside or beyond
        ns = round(self._span.at(work, span, traffic) * scaled / work)
        return Timed(ns, ns if outside else 0)

    def work(self, chunks: Sequence[tuple[int, int]]) -> Work:
        """HBM bytes and FLOPs of one layer for (prefix, tokens) chunks."""
        parts = [self._chunk_work(prefix, tokens) for prefix, tokens in chunks]
        return Work(sum([b for b, _ in parts]), sum([f for _, f in parts]))

    def _chunk_work(self, prefix: int, tokens: int) -> tuple[int, int]:
        """HBM bytes and FLOPs of one chunk."""
        window = self._window
        keys = (min(prefix, window) if window else prefix) + tokens
        pairs = attended_pairs(prefix, tokens, window)
        hbm_bytes = tokens * self._row_bytes + keys * self._key_bytes
        return hbm_bytes, pairs * self._pair_flops

    def _bounds(self, prefix: int, tokens: int) -> tuple[float, float, float]:
        hbm_bytes, flops = self._chunk_work(prefix, tokens)
        longest, window = prefix + tokens, self._window
        if window:
            longest = min(longest, window)
        return self._span.bounds(flops, longest, hbm_bytes)

    def _scale(self, tokens: int) -> tuple[float, bool]:
        known = self._scales.get(tokens)
        if known is None:
            edge = min(tokens, self._longest)
            table_ns = self._table.at(edge).ns * self._heads_ratio
            known = (
                table_ns / self._span.at(*self._bounds(0, edge)),
                tokens > self._longest,
            )
            self._scales[tokens] = known
        return known


class DecodeAttention:
    """Attention of a decode batch, by its size and its mean context.

    A batch of mixed contexts costs what an equal batch at the mean context costs:
    the bytes read are the same. A sliding window caps the context.

    Args:
        tables: Profiled tables of the GPU.
        shape: Heads on this GPU.

    Raises:
        ConfigError: If no such attention was profiled on the GPU.
    """

    def __init__(self, tables: KernelTables, shape: AttentionShape) -> None:
        self._shape = shape
        rows, self._heads_ratio = _profiled(tables, "decode_attention", shape)
        batches, i = np.unique(rows["batch_size"], return_inverse=True)
        steps, j = np.unique(rows["step"], return_inverse=True)
        for column, values in (("batch_size", batches), ("step", steps)):
            if values.size == 1:
                raise ConfigError(
                    f"{tables.gpu}: decode_attention: only {column} = {values[0]} was"
                    f" profiled for {shape.num_kv_heads} KV heads of {shape.head_dim};"
                    " needed: two or more"
                )
        times = np.full((batches.size, steps.size), np.nan)
        times[i, j] = rows["latency_ns"]
        # A row of the table attends to its past and to the new token.
        self._grid = LogLogGrid(
            batches.astype(np.float64),
            steps.astype(np.float64) + 1.0,
            times,
            grows=not shape.window,
        )

    def at(self, batch: int, context: int) -> Timed:
        """Time of one layer for ``batch`` rows over ``context`` tokens in all."""
        timed = self._grid.at(batch, context / batch)
        if self._heads_ratio == 1.0:
            return timed
        ns = round(timed.ns * self._heads_ratio)
        return Timed(ns, ns if timed.extrapolated_ns else 0)

    def many(
        self, batch: int, contexts: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Times (ns) over an array of contexts, and which are extrapolated.

        Exactly what :meth:`at` gives for each.
        """
        ns, outside = self._grid.along(batch, contexts / batch)
        if self._heads_ratio != 1.0:
            ns = np.rint(ns * self._heads_ratio).astype(np.int64)
        return ns, outside

    def work(self, batch: int, context: int) -> Work:
        """HBM bytes and FLOPs of one layer."""
        window = self._shape.window
        keys = min(context, batch * window) if window else context
        row_bytes, key_bytes, key_flops = self._per_unit()
        return Work(batch * row_bytes + keys * key_bytes, keys * key_flops)

    def work_many(
        self, batch: int, contexts: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """HBM bytes and FLOPs of one layer over an array of contexts."""
        window = self._shape.window
        keys = np.minimum(contexts, batch * window) if window else contexts
        row_bytes, key_bytes, key_flops = self._per_unit()
        return batch * row_bytes + keys * key_bytes, keys * key_flops

    def _per_unit(self) -> tuple[int, int, int]:
        """Bytes of a row, bytes of a key and FLOPs of a key, in one layer."""
        shape = self._shape
        width = shape.num_heads * shape.head_dim
        return 2 * width * _Q_BYTES, shape.kv_bytes_per_token, 4 * width
