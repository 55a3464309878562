"""How many layer groups a batch is spread over, and which layers each one holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType

TOKENS_PER_GROUP = 512
"""Prompt tokens per group in both rules, so that a group's work equals that of a
512-token chunk through the whole model (arXiv 2510.08055, section 4.4)."""


def paper_group_count(tokens: int, cap: int) -> int:
    """``ceil(tokens / 512)``, at most ``cap`` (arXiv 2510.08055, section 4.4)."""
    return min(cap, max(1, -(-tokens // TOKENS_PER_GROUP)))


def code_group_count(tokens: int, cap: int) -> int:
    """The table of the authors' published code (scale-snu/layered-prefill, 427f441).

    Steps at 512, 1024, 2048 and 4096 tokens to 1, 2, 4, 8 and ``cap`` groups; at cap
    12 the step below the cap is 6, at cap 4 all steps stop at 4. Other caps follow
    the same pattern.
    """
    for limit, groups in ((512, 1), (1024, 2), (2048, 4)):
        if tokens <= limit:
            return min(groups, cap)
    if tokens <= 4096:
        return min(cap, 8, max(4, cap // 2))
    return cap


GROUP_RULES: Mapping[str, Callable[[int, int], int]] = MappingProxyType(
    {"code": code_group_count, "paper": paper_group_count}
)
"""Group-count rules by their configuration name."""


def layer_groups(
    num_layers: int, groups: int, stage_ends: tuple[int, ...] = ()
) -> tuple[tuple[int, int], ...]:
    """Contiguous, near-equal (first, last) layer ranges; earlier ones are larger.

    Under pipeline parallelism each lies inside one stage, so that there are as many as
    stages at least: every further one goes to the stage with the largest groups.

    Args:
        num_layers: Layers of the model.
        groups: How many ranges, at most ``num_layers``.
        stage_ends: Layers after which stages end; empty is one stage.
    """
    bounds = (0, *(stage_ends or (num_layers,)))
    stages = list(pairwise(bounds))
    shares = [1] * len(stages)
    for _ in range(groups - len(stages)):
        sizes = [(b - a) / n for (a, b), n in zip(stages, shares, strict=True)]
        shares[sizes.index(max(sizes))] += 1
    return tuple(
        group
        for (first, last), share in zip(stages, shares, strict=True)
        for group in _even(first, last, share)
    )


@lru_cache(maxsize=1024)
def group_ends(
    num_layers: int, groups: int, stage_ends: tuple[int, ...] = ()
) -> Mapping[int, int]:
    """The one after the last layer of each of :func:`layer_groups`, by its first."""
    return MappingProxyType(dict(layer_groups(num_layers, groups, stage_ends)))


def _even(first: int, last: int, groups: int) -> list[tuple[int, int]]:
    """Near-equal ranges from ``first`` to ``last``; earlier ones are larger."""
    size, larger = divmod(last - first, groups)
    bounds = [first + size * g + min(g, larger) for g in range(groups + 1)]
    return list(pairwise(bounds))
