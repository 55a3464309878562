"""Best pair swaps: affinity or co-activation against balance, one layer at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim.routing_stats import Float

Labels = npt.NDArray[np.int64]
_MOST_SWAPS = 4000
_LEAST_GAIN = 1e-13


def one_hot(labels: Labels, gpus: int) -> Float:
    """Membership of experts, shape (..., E, G)."""
    return np.asarray(labels[..., None] == np.arange(gpus), dtype=np.float64)


def swap_layer(
    labels: Labels,
    load: Float,
    gpus: int,
    *,
    score: Float | None = None,
    pairs: Float | None = None,
    balance: float = 1.0,
    cap: float | None = None,
) -> Labels:
    """Swap experts of two GPUs while the best swap gains.

    Maximises sum_e score[e, gpu(e)] + sum_{i,j on one GPU} pairs[i, j]
    - balance * G * sum_g (load_g - 1/G)^2.

    Args:
        labels: GPU of each expert, shape (E,).
        load: Share of each expert, shape (E,).
        gpus: G.
        score: Worth of each expert on each GPU, shape (E, G); None is 0.
        pairs: Worth of two experts on one GPU, symmetric, empty diagonal, (E, E).
        balance: Weight of the imbalance.
        cap: Load no GPU may be brought above; None is no limit.

    Returns:
        New labels; every GPU holds as many experts as before.
    """
    labels = labels.copy()
    for _ in range(_MOST_SWAPS):
        gain = _gains(labels, load, gpus, score, pairs, balance)
        if cap is not None:
            total = np.bincount(labels, load, gpus)[labels]
            more = load[None, :] - load[:, None]
            over = (more > 0) & (total[:, None] + more > cap)
            gain[over | over.T] = 0.0
        best = int(np.argmax(gain))
        if gain.flat[best] <= _LEAST_GAIN:
            break
        a, b = divmod(best, labels.size)
        labels[a], labels[b] = labels[b], labels[a]
    return labels


def _gains(
    labels: Labels,
    load: Float,
    gpus: int,
    score: Float | None,
    pairs: Float | None,
    balance: float,
) -> Float:
    """Gain of swapping every two experts, shape (E, E)."""
    total = np.bincount(labels, load, gpus)
    excess = total[labels]
    more = load[None, :] - load[:, None]  # what a's GPU gains by getting b
    gain: Float = (
        -2.0 * balance * gpus * more * (excess[:, None] - excess[None, :] + more)
    )
    worth = score
    if pairs is not None:
        # Each pair counts twice, as pairs is symmetric.
        kin = 2.0 * pairs @ one_hot(labels, gpus)
        worth = kin if worth is None else worth + kin
        gain -= 4.0 * pairs
    if worth is not None:
        moved = worth[:, labels] - worth[np.arange(labels.size), labels][:, None]
        gain += moved + moved.T
    gain[labels[:, None] == labels[None, :]] = 0.0
    return gain
