"""What is measured: the kernels of some models at one split, the widest grid first.

Sizes double along every axis. Each has a level: 0 for the two ends of its axis, 1 for
the middle, 2 for the quarters, and so on; a kernel has that of its finest axis. Kernels
are measured level by level, so any budget covers the whole range, a larger budget only
fills it in, and a session can go on under a larger budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from calibration.model_shape import ModelShape
from calibration.profiler.columns import TOUCHED, WORDS, Kernel, kernel, sort_key
from calibration.profiler.cost import seconds, tensor_bytes
from calibration.profiler.timing import TimingRules
from sim.errors import ConfigError

DTYPE: Final = "bfloat16"
"""The one format the benchmark has kernels for."""

# The ranges of the public tables (aiconfigurator-core 0.12.0), but for the prefix.
_MOST_ROWS: Final = 16384
_MOST_PREFILL_TOKENS: Final = 131072
_LEAST_CHUNK: Final = 16
_LEAST_PREFIX: Final = 512
_MOST_PREFILL_BATCH: Final = 64
_LEAST_CONTEXT: Final = 16
_MOST_DECODE_BATCH: Final = 512
_LEAST_MESSAGE: Final = 1 << 10
_MOST_CUSTOM_MESSAGE: Final = 1 << 23  # vLLM's custom all-reduce stops at 8 MiB
_MOST_NCCL_MESSAGE: Final = 1 << 29
_MEMORY_SHARE: Final = 0.8  # the rest: libraries, graphs, the L2 flush, fragmentation


@dataclass(frozen=True, slots=True)
class Split:
    """How a model is spread over GPUs.

    Attributes:
        tp: tensor-parallel size.
        ep: expert-parallel size, 1 or `tp`.
    """

    tp: int = 1
    ep: int = 1


Leveled = tuple[int, Kernel]
"""A kernel and its level."""


def full_grid(
    models: Sequence[ModelShape], split: Split, memory_bytes: int, *, collectives: bool
) -> tuple[Leveled, ...]:
    """Every kernel of the models that fits in memory, once, in measuring order.

    Args:
        models: the models.
        split: tensor- and expert-parallel size.
        memory_bytes: memory of one GPU.
        collectives: whether a group of `split.tp` GPUs is there to measure them.

    Raises:
        ConfigError: if the split does not divide a model.
    """
    levels: dict[Kernel, int] = {}
    limit = int(_MEMORY_SHARE * memory_bytes)
    for shape in models:
        _check_split(shape, split)
    for level, found in _candidates(models, split, limit, collectives):
        if tensor_bytes(found) <= limit:
            levels[found] = min(level, levels.get(found, level))
    ordered = sorted(levels, key=lambda found: (levels[found], sort_key(found)))
    return tuple((levels[found], found) for found in ordered)


def within_budget(
    grid: Sequence[Leveled], rules: TimingRules, budget_s: float
) -> tuple[Kernel, ...]:
    """The first kernels of a grid whose estimated time fits into a budget.

    Raises:
        ConfigError: if not even level 0 fits; names the budget that would do.
    """
    chosen: list[Kernel] = []
    used = least = 0.0
    for level, found in grid:
        used += seconds(found, rules)
        if level == 0:
            least = used
        if used <= budget_s:
            chosen.append(found)
    if least > budget_s:
        raise ConfigError(
            f"--budget-s {budget_s:g}: the coarsest grid takes about {least:.0f} s;"
            f" allowed: {math.ceil(least)} or more"
        )
    return tuple(chosen)


def doubling(first: int, last: int) -> tuple[int, ...]:
    """`first`, doubled until `last`, which is always the end; empty if last < first."""
    if last < first:
        return ()
    sizes = [first]
    while sizes[-1] * 2 <= last:
        sizes.append(sizes[-1] * 2)
    return tuple(dict.fromkeys((*sizes, last)))


def levels_of(count: int) -> tuple[int, ...]:
    """Level of each position of an axis: ends 0, the middle 1, the quarters 2, ..."""
    levels = [0] * count
    spans = [(0, count - 1, 1)]
    for low, high, level in spans:  # grows while it is read: breadth first
        middle = (low + high) // 2
        if middle > low:
            levels[middle] = level
            spans += [(low, middle, level + 1), (middle, high, level + 1)]
    return tuple(levels)


def _axis(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(levels_of(len(sizes)), sizes, strict=True)


def _candidates(
    models: Sequence[ModelShape], split: Split, memory_bytes: int, collectives: bool
) -> Iterator[Leveled]:
    for shape in models:
        yield from _gemms(shape, split)
        yield from _attention(shape, split, memory_bytes)
        if shape.is_moe:
            yield from _moe(shape, split)
    if collectives:
        yield from _collectives(split.tp)


def _gemms(shape: ModelShape, split: Split) -> Iterator[Leveled]:
    for n, k in sorted(set(_products(shape, split.tp))):
        for level, m in _axis(doubling(1, _MOST_ROWS)):
            yield level, kernel("gemm", dtype=DTYPE, n=n, k=k, m=m)


def _products(shape: ModelShape, tp: int) -> Iterator[tuple[int, int]]:
    """(n, k) of the dense products of one layer, and of the LM head, on one GPU."""
    hidden, queries = shape.hidden_size, shape.num_heads // tp * shape.head_dim
    keys = max(shape.num_kv_heads // tp, 1) * shape.head_dim
    yield queries + 2 * keys, hidden
    yield hidden, queries
    yield -(-shape.vocab_size // tp), hidden
    if shape.is_moe:
        yield shape.num_experts, hidden
    else:
        inner = shape.intermediate_size // tp
        yield 2 * inner, hidden
        yield hidden, inner


def _attention(shape: ModelShape, split: Split, memory_bytes: int) -> Iterator[Leveled]:
    for window in sorted(set(shape.layer_windows)):
        heads: dict[str, int | str] = {
            "kv_dtype": DTYPE,
            "num_heads": shape.num_heads // split.tp,
            "num_key_value_heads": max(shape.num_kv_heads // split.tp, 1),
            "head_dim": shape.head_dim,
            "window_size": window,
        }
        context = shape.max_position_embeddings
        yield from _prefill(heads, context)
        one = kernel("decode_attention", **heads, batch_size=1, step=1)
        yield from _decode(heads, context, memory_bytes // tensor_bytes(one))


def _prefill(heads: dict[str, int | str], context: int) -> Iterator[Leveled]:
    for of_chunk, chunk in _axis(doubling(_LEAST_CHUNK, min(context, _MOST_ROWS))):
        prefixes = (0, *doubling(_LEAST_PREFIX, context - chunk))
        for of_prefix, prefix in _axis(prefixes):
            most = min(_MOST_PREFILL_TOKENS // (chunk + prefix), _MOST_PREFILL_BATCH)
            for of_batch, batch in _axis(doubling(1, max(most, 1))):
                keys = {"batch_size": batch, "isl": chunk, "prefix": prefix}
                level = max(of_chunk, of_prefix, of_batch)
                yield level, kernel("prefill_attention", **heads, **keys)


def _decode(
    heads: dict[str, int | str], context: int, most_keys: int
) -> Iterator[Leveled]:
    for of_batch, batch in _axis(doubling(1, _MOST_DECODE_BATCH)):
        most = min(context - 1, most_keys // batch)
        for of_step, step in _axis(doubling(_LEAST_CONTEXT, most)):
            keys = {"batch_size": batch, "step": step}
            yield (
                max(of_batch, of_step),
                kernel("decode_attention", **heads, **keys),
            )


def _moe(shape: ModelShape, split: Split) -> Iterator[Leveled]:
    for of_tokens, tokens in _axis(doubling(1, _MOST_ROWS)):
        most = min(shape.num_experts, tokens * shape.top_k)
        for of_touched, touched in _axis(doubling(shape.top_k, most)):
            yield (
                max(of_tokens, of_touched),
                kernel(
                    "moe",
                    dtype=DTYPE,
                    hidden_size=shape.hidden_size,
                    inter_size=shape.moe_intermediate_size,
                    topk=shape.top_k,
                    num_experts=shape.num_experts,
                    moe_tp_size=split.tp // split.ep,
                    moe_ep_size=split.ep,
                    distribution=TOUCHED,
                    num_tokens=tokens,
                    touched_experts=touched,
                ),
            )


def _collectives(num_gpus: int) -> Iterator[Leveled]:
    for backend in WORDS["backend"]:
        for level, size in _axis(doubling(_LEAST_MESSAGE, _MOST_CUSTOM_MESSAGE)):
            keys = {"num_gpus": num_gpus, "message_size": size}
            yield level, kernel("custom_allreduce", backend=backend, **keys)
    for op in WORDS["op_name"]:
        for level, size in _axis(doubling(_LEAST_MESSAGE, _MOST_NCCL_MESSAGE)):
            keys = {"num_gpus": num_gpus, "message_size": size}
            yield level, kernel("nccl", op_name=op, **keys)


def _check_split(shape: ModelShape, split: Split) -> None:
    tp, ep = split.tp, split.ep
    if ep not in (1, tp):
        raise ConfigError(f"--ep {ep}: allowed: 1 or {tp}, the tensor-parallel size")
    if tp < 1 or shape.num_heads % tp:
        heads = f"the {shape.num_heads} attention heads of {shape.name}"
        raise ConfigError(f"--tp {tp}: must divide {heads}")
    if shape.num_kv_heads % tp and tp % shape.num_kv_heads:
        heads = f"the {shape.num_kv_heads} KV heads of {shape.name}"
        raise ConfigError(f"--tp {tp}: must divide, or be a multiple of, {heads}")
    if ep > 1 and (not shape.is_moe or shape.num_experts % ep):
        raise ConfigError(
            f"--ep {ep}: must divide the {shape.num_experts} experts of {shape.name}"
        )
    width = shape.moe_intermediate_size if shape.is_moe else shape.intermediate_size
    if width % (tp // ep):
        raise ConfigError(f"--tp {tp}: must divide the FFN width of {shape.name}")
