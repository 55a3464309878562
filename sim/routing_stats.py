"""Routing statistics of a mixture-of-experts model under a workload: plain values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.errors import ConfigError

Float = npt.NDArray[np.float64]
_TOLERANCE = 1e-3
_MOST = 1e30  # sums of many stay finite
_BALANCING_SWEEPS = 60


@dataclass(frozen=True, slots=True, eq=False)
class RoutingStats:
    """What a profiler would give: who is chosen, after whom, and with whom.

    Attributes:
        load: Share of a layer's token-expert pairs per expert, shape (L, E); every
            layer sums to 1.
        top_k: Experts per token.
        transition: Share of tokens that go from expert i in layer l to expert j in
            layer l + 1, shape (L - 1, E, E); every layer sums to 1. None if unknown.
        coactivation: Share of co-selected pairs of experts of one token, symmetric
            with an empty diagonal, shape (L, E, E); every layer sums to 1. None if
            unknown.
        domain: What the tokens were about.
    """

    load: Float
    top_k: int
    transition: Float | None = None
    coactivation: Float | None = None
    domain: str = ""

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return int(self.load.shape[0])

    @property
    def num_experts(self) -> int:
        """Experts per layer."""
        return int(self.load.shape[1])

    def following(self) -> Float:
        """The transitions; where unknown, those of independent layers."""
        if self.transition is not None:
            return self.transition
        independent: Float = self.load[:-1, :, None] * self.load[1:, None, :]
        return independent


def make_stats(
    load: Float,
    top_k: int,
    transition: Float | None = None,
    coactivation: Float | None = None,
    *,
    domain: str = "",
    where: str = "routing statistics",
) -> RoutingStats:
    """Check arrays and scale them to shares.

    ``load`` may hold shares (a layer sums to 1), inclusion probabilities (to top_k) or
    whole counts (every layer the same total); ``transition`` joint shares (a layer
    sums to 1), conditional probabilities (a row sums to 1, or to 0 if never seen) or
    whole counts. Co-activation is any non-negative symmetric matrix; its diagonal is
    ignored.

    Args:
        load: Shape (L, E).
        top_k: Experts per token, 1 to E.
        transition: Shape (L - 1, E, E) or None.
        coactivation: Shape (L, E, E) or None.
        domain: What the tokens were about.
        where: Names the source in errors, a file for example.

    Raises:
        ConfigError: On a wrong shape, NaN, a negative number or a wrong sum.
    """
    load = _array(load, 2, where, "load")
    layers, experts = load.shape
    if not 1 <= top_k <= experts:
        raise ConfigError(
            f"{where}: top_k = {top_k}: must be 1 to num_experts ({experts})"
        )
    shares = _load_shares(load, top_k, where)
    if transition is not None and layers == 1:
        transition = None
    if transition is not None:
        transition = _array(
            transition, 3, where, "transition", (layers - 1, experts, experts)
        )
        transition = _joint(transition, shares, where)
    if coactivation is not None:
        coactivation = _array(
            coactivation, 3, where, "coactivation", (layers, experts, experts)
        )
        coactivation = _pairs(coactivation, where)
    return RoutingStats(shares, top_k, transition, coactivation, domain)


def _array(
    values: Float, ndim: int, where: str, name: str, shape: tuple[int, ...] = ()
) -> Float:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or (shape and array.shape != shape) or not array.size:
        wanted = "x".join(map(str, shape)) or f"{ndim} non-empty dimensions"
        got = "x".join(map(str, array.shape))
        raise ConfigError(f"{where}: {name}: shape {got}; must be {wanted}")
    if not np.isfinite(array).all():
        raise ConfigError(f"{where}: {name}: holds NaN or infinity; must be finite")
    if (array > _MOST).any():
        raise ConfigError(f"{where}: {name}: holds a number > {_MOST:g}")
    if (array < 0).any():
        raise ConfigError(f"{where}: {name}: holds a number < 0; must be >= 0")
    return array


def _near(sums: Float, target: float) -> bool:
    return bool(np.abs(sums - target).max() <= _TOLERANCE * target)


def _counted(array: Float, sums: Float) -> bool:
    """Whether these are whole counts of the same tokens in every layer."""
    whole = bool((array == np.rint(array)).all()) and float(sums.min()) > 1
    return whole and bool((sums == sums[0]).all())


def _load_shares(load: Float, top_k: int, where: str) -> Float:
    sums = load.sum(axis=1)
    if not (_near(sums, 1.0) or _near(sums, top_k) or _counted(load, sums)):
        layer = int(np.argmax(np.abs(sums - np.median(sums))))
        raise ConfigError(
            f"{where}: load: layer {layer} sums to {sums[layer]:.6g}; every layer must"
            f" sum to 1 (shares), to top_k = {top_k}, or to the same whole count"
        )
    shares: Float = load / sums[:, None]
    return shares


def _joint(transition: Float, load: Float, where: str) -> Float:
    sums, rows = transition.sum(axis=(1, 2)), transition.sum(axis=2)
    if _near(sums, 1.0) or _counted(transition, sums):
        joint: Float = transition / sums[:, None, None]
        return joint
    known = rows > 0
    if known.any(axis=1).all() and _near(rows[known], 1.0):
        joint = load[:-1, :, None] * transition
        joint /= joint.sum(axis=(1, 2), keepdims=True)
        return joint
    layer = int(np.argmax(np.abs(sums - 1.0)))
    raise ConfigError(
        f"{where}: transition: layer {layer} sums to {sums[layer]:.6g}; every layer"
        " must sum to 1 (joint shares), or every row to 1 (conditional), or hold"
        " whole counts with one total"
    )


def _pairs(coactivation: Float, where: str) -> Float:
    pairs = coactivation.copy()
    diagonal = np.arange(pairs.shape[1])
    pairs[:, diagonal, diagonal] = 0.0
    scale = np.maximum(pairs.max(), 1e-300)
    if np.abs(pairs - pairs.transpose(0, 2, 1)).max() > _TOLERANCE * scale:
        raise ConfigError(f"{where}: coactivation: must be symmetric in every layer")
    sums = pairs.sum(axis=(1, 2))
    if not (sums > 0).all():
        raise ConfigError(f"{where}: coactivation: a layer has no pair at all")
    shares: Float = pairs / sums[:, None, None]
    return shares


def with_margins(base: Float, rows: Float, columns: Float) -> Float:
    """Scale rows and columns of (n, E, E) tables until their sums are as given.

    Sinkhorn scaling: the closest tables with these margins in relative entropy.
    """
    right = np.ones_like(columns)
    for _ in range(_BALANCING_SWEEPS):
        left = rows / np.matmul(base, right[:, :, None])[:, :, 0]
        right = columns / np.matmul(left[:, None, :], base)[:, 0, :]
    scaled: Float = left[:, :, None] * base * right[:, None, :]
    scaled /= scaled.sum(axis=(1, 2), keepdims=True)
    return scaled
