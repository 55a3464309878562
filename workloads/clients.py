"""Which client sends each request."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workloads.spec import WorkloadSpec
from workloads.streams import stream


def client_of(spec: WorkloadSpec, num_requests: int) -> NDArray[np.int64]:
    """Client of each request, int64 of shape (num_requests,), drawn independently.

    Client k of 0, 1, ... sends a share in proportion to (k + 1) ** -skew (Zipf). Drawn
    from the stream "clients", so that times and lengths do not depend on it.
    """
    if spec.num_clients == 1:
        return np.zeros(num_requests, dtype=np.int64)
    shares = np.arange(1, spec.num_clients + 1, dtype=np.float64) ** -spec.client_skew
    edges = np.cumsum(shares)
    draws = stream(spec.seed, "clients").random(num_requests) * edges[-1]
    last = spec.num_clients - 1
    clients: NDArray[np.int64] = np.minimum(
        np.searchsorted(edges, draws, side="right"), last
    )
    return clients
