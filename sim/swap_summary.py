"""What swap preemption did in a run: counts, bytes and time of copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.build_swap import SwapSpace
from sim.swapping import SwapLog
from sim.units import s_from_ns


def swap_summary(swap: SwapSpace | None, logs: Sequence[SwapLog]) -> dict[str, Any]:
    """Keys of ``result.json``; none where preemption recomputes.

    ``swapped_out`` and ``swapped_in`` count requests, once per copy; bytes are over all
    GPUs. ``preemptions`` less ``swapped_out`` were recomputed. ``swap_s`` is the time
    in which replicas waited for copies, added up.
    """
    if swap is None:
        return {}
    blocks_out = sum(sum(log.blocks_out) for log in logs)
    blocks_in = sum(sum(log.blocks_in) for log in logs)
    return {
        "swap_space_blocks": swap.blocks,
        "swapped_out": sum(sum(log.requests_out) for log in logs),
        "swapped_in": sum(sum(log.requests_in) for log in logs),
        "swapped_out_bytes": blocks_out * swap.link.block_bytes,
        "swapped_in_bytes": blocks_in * swap.link.block_bytes,
        "swap_s": s_from_ns((blocks_out + blocks_in) * swap.link.block_ns),
    }


def copy_times(
    swap: SwapSpace | None, logs: Sequence[SwapLog]
) -> tuple[Mapping[int, int], ...]:
    """Of each replica, time of copies (ns) by start of their iteration (ns)."""
    if swap is None:
        return ()
    block_ns = swap.link.block_ns
    return tuple(
        {
            start_ns: (blocks_in + blocks_out) * block_ns
            for start_ns, blocks_in, blocks_out in zip(
                log.start_ns, log.blocks_in, log.blocks_out, strict=True
            )
        }
        for log in logs
    )
