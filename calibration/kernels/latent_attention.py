"""Latent attention: prefill with a cached prefix, and decode over the latents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from calibration.hardware import Gpu
from calibration.kernels.gemm import Gemms
from calibration.kernels.latent_heads import LatentHeads, absorbed_chunk_tokens
from calibration.kernels.latent_tables import BareKernel
from calibration.kernels.what_if import Work
from calibration.kernels.work_span import WorkSpan
from calibration.tables import KernelTables
from sim.kernel_times import Timed

Chunks = Sequence[tuple[int, int]]
Integer = npt.NDArray[np.int64]
Boolean = npt.NDArray[np.bool_]
_ACTIVATION_BYTES = 2
_PREFIX_KERNELS = 3
"""Gather a prefix from the cache, join the two parts of its keys, merge two outputs."""


class LatentPrefill:
    """Attention of prompt chunks, with the products that expand their latents.

    The tables hold no cached prefix. Chunks cost what the table says for as many
    chunks of their mean length without prefix, and the difference that the work/span
    bound sees between the two, at the efficiency the kernel has at its longest profiled
    prompt. In addition the latents of prefix and chunk are expanded by one matrix
    product, and the prefix by small memory-bound kernels; chunks short enough to run
    as decodes do attend to the latents as they are.

    Args:
        tables: Profiled tables of the GPU.
        gpu: The GPU, with its work/span parameters.
        gemms: Matrix products of the model, and of module rows.
        shape: Heads on this GPU.

    Raises:
        ConfigError: If no such attention was profiled on the GPU.
    """

    def __init__(
        self,
        tables: KernelTables,
        gpu: Gpu,
        gemms: Gemms,
        shape: LatentHeads,
    ) -> None:
        self._kernel = BareKernel(tables, gpu, gemms, shape, "prefill")
        self._span = WorkSpan(gpu)
        self._gemms = gemms
        self._shape = shape
        self._absorbed_tokens = absorbed_chunk_tokens(tables, shape.kv_dtype)
        self._launch_ns = gpu.elementwise_latency_us * 1e3
        self._bytes_per_ns = (
            gpu.elementwise_bandwidth_fraction * gpu.hbm_bandwidth_bytes_per_s / 1e9
        )
        longest = self._kernel.longest
        long_way = longest <= self._absorbed_tokens
        bound_ns = self._bound([(0, longest)], absorbed=long_way)
        # Short chunks are all overhead and show no efficiency of their own.
        self._efficiency = {
            not long_way: 1.0,
            long_way: self._kernel.at(1, longest).ns / bound_ns,
        }

    def at(self, chunks: Chunks) -> Timed:
        """Time of one layer for (prefix, tokens) chunks."""
        ns = outside = 0
        for absorbed in (True, False):
            group = [c for c in chunks if (c[1] <= self._absorbed_tokens) == absorbed]
            for timed in self._parts(group, absorbed=absorbed) if group else ():
                ns += timed.ns
                outside += timed.extrapolated_ns
        return Timed(ns, outside)

    def work(self, chunks: Chunks) -> Work:
        """HBM bytes and FLOPs of one layer for (prefix, tokens) chunks."""
        hbm_bytes = flops = 0.0
        for prefix, tokens in chunks:
            absorbed = tokens <= self._absorbed_tokens
            moved, computed = self._attention(prefix, tokens, absorbed=absorbed)
            hbm_bytes += moved
            flops += computed
            if not absorbed:
                n, k = self._shape.latent.expansion(self._shape.num_heads)
                hbm_bytes += (prefix + tokens) * (n + k) * _ACTIVATION_BYTES
                flops += 2 * (prefix + tokens) * n * k
        return Work(hbm_bytes, flops)

    def _parts(self, chunks: Chunks, *, absorbed: bool) -> list[Timed]:
        tokens = sum(tokens for _, tokens in chunks)
        prefix = sum(prefix for prefix, _ in chunks)
        mean = tokens / len(chunks)
        parts = [self._kernel.at(len(chunks), mean)]
        added = self._bound(chunks, absorbed=absorbed) - self._bound(
            [(0, mean)] * len(chunks), absorbed=absorbed
        )
        added_ns = round(added * self._efficiency[absorbed])
        # A prefix is attended to by the same kernel: outside if the kernel is.
        parts.append(Timed(added_ns, added_ns if parts[0].extrapolated_ns else 0))
        if not absorbed:
            n, k = self._shape.latent.expansion(self._shape.num_heads)
            parts.append(self._gemms.at(prefix + tokens, n, k))
            if prefix:
                parts.append(self._gather(prefix, tokens))
        return parts

    def _bound(self, chunks: Sequence[tuple[int, float]], *, absorbed: bool) -> float:
        work = span = traffic = 0.0
        for prefix, tokens in chunks:
            moved, flops = self._attention(prefix, tokens, absorbed=absorbed)
            # Over latents, thread blocks share the keys of a row (split KV).
            keys = 0.0 if absorbed else prefix + tokens
            bounds = self._span.bounds(flops, keys, moved)
            work += bounds[0]
            span = max(span, bounds[1])
            traffic += bounds[2]
        return self._span.at(work, span, traffic)

    def _attention(
        self, prefix: int, tokens: float, *, absorbed: bool
    ) -> tuple[float, float]:
        """(HBM bytes, FLOPs) of attention alone."""
        pairs = tokens * prefix + tokens * (tokens + 1) / 2
        count = self._shape.absorbed if absorbed else self._shape.expanded
        return count(tokens, prefix + tokens, pairs)

    def _gather(self, prefix: int, tokens: int) -> Timed:
        """Small kernels around the expansion of a prefix, analytic."""
        latent, heads = self._shape.latent, self._shape.num_heads
        gathered = self._shape.cache_bytes + latent.cache_width * _ACTIVATION_BYTES
        joined = heads * (latent.nope_dim + latent.query_dim) * _ACTIVATION_BYTES
        # Two partial outputs in, one out.
        merged = 3 * heads * latent.value_dim * _ACTIVATION_BYTES
        moved = prefix * (gathered + joined) + tokens * merged
        return Timed(
            round(_PREFIX_KERNELS * self._launch_ns + moved / self._bytes_per_ns)
        )


class LatentDecode:
    """Attention of a decode batch over the latents, by its size and mean context.

    Args:
        tables: Profiled tables of the GPU.
        gpu: The GPU.
        gemms: Matrix products of module rows.
        shape: Heads on this GPU.

    Raises:
        ConfigError: If no such attention was profiled on the GPU.
    """

    def __init__(
        self,
        tables: KernelTables,
        gpu: Gpu,
        gemms: Gemms,
        shape: LatentHeads,
    ) -> None:
        self._kernel = BareKernel(tables, gpu, gemms, shape, "decode")
        self._shape = shape

    def at(self, batch: int, context: int) -> Timed:
        """Time of one layer for ``batch`` rows over ``context`` tokens in all."""
        return self._kernel.at(batch, context / batch)

    def many(self, batch: int, contexts: Integer) -> tuple[Integer, Boolean]:
        """Times (ns) over an array of contexts, and which are extrapolated.

        Exactly what :meth:`at` gives for each.
        """
        return self._kernel.along(batch, contexts / batch)

    def work(self, batch: int, context: int) -> Work:
        """HBM bytes and FLOPs of one layer."""
        return Work(*self._shape.absorbed(batch, context, context))

    def work_many(self, batch: int, contexts: Integer) -> tuple[Integer, Integer]:
        """HBM bytes and FLOPs of one layer over an array of contexts."""
        row_bytes, _ = self._shape.absorbed(batch, 0, 0)
        key_bytes, pair_flops = self._shape.absorbed(0, 1, 1)
        return int(row_bytes) + contexts * int(key_bytes), contexts * int(pair_flops)
