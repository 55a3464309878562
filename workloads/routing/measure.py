"""Statistics of routed tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim.routing_stats import Float, RoutingStats
from workloads.routing.choose import Experts


def measure(
    routed: Experts, num_experts: int, *, pairs: bool = True, domain: str = ""
) -> RoutingStats:
    """Popularity, transitions and co-activation of routed tokens.

    With k > 1 every selected expert counts 1/k of its token, and a transition goes
    from every selected expert to every one of the next layer.

    Args:
        routed: Expert numbers, shape (tokens, layers, top_k).
        num_experts: Experts per layer.
        pairs: Also measure transitions and co-activation (E x E per layer).
        domain: What the tokens were about.
    """
    tokens, layers, top_k = routed.shape
    load = np.stack([_counts(routed[:, n], num_experts) for n in range(layers)])
    load /= tokens * top_k
    if not pairs:
        return RoutingStats(load, top_k, domain=domain)
    transition = np.zeros((max(layers - 1, 0), num_experts, num_experts))
    together = np.zeros((layers, num_experts, num_experts))
    previous: Float | None = None
    for layer in range(layers):
        chosen = _indicator(routed[:, layer], num_experts)
        if previous is not None:
            transition[layer - 1] = previous.T @ chosen
        together[layer] = chosen.T @ chosen
        previous = chosen
    transition /= tokens * top_k**2
    np.einsum("lii->li", together)[:] = 0.0
    sums = together.sum(axis=(1, 2), keepdims=True)
    coactivation = together / sums if top_k > 1 else None
    return RoutingStats(
        load, top_k, transition if layers > 1 else None, coactivation, domain
    )


def distinct_experts(routed: Experts, num_experts: int) -> npt.NDArray[np.int64]:
    """Different experts that tokens touch in each layer, shape (layers,)."""
    layers = routed.shape[1]
    return np.array(
        [(_counts(routed[:, n], num_experts) > 0).sum() for n in range(layers)]
    )


def _counts(chosen: Experts, num_experts: int) -> Float:
    return np.bincount(chosen.ravel(), minlength=num_experts).astype(np.float64)


def _indicator(chosen: Experts, num_experts: int) -> Float:
    """One row per token, 1 at its experts; float32 keeps the products in BLAS."""
    out = np.zeros((chosen.shape[0], num_experts), dtype=np.float32)
    np.put_along_axis(out, chosen.astype(np.int64), 1.0, axis=1)
    return out  # type: ignore[return-value]
