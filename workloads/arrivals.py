"""Open-loop arrivals: gamma inter-arrival times with vLLM's ``burstiness``.

``vllm bench serve`` draws gaps from a gamma law of shape = burstiness and scale =
1 / (rate * burstiness), so the mean gap is 1 / rate and its coefficient of variation
1 / sqrt(burstiness): 1 is Poisson, less is burstier, ``inf`` is a metronome.

Two differences on purpose. vLLM rescales the times of a run so that the last arrival
falls on n / rate; here gaps stay as drawn, for then the first n of a longer draw are
the draw of n, and counts vary as those of a real Poisson process do. As in vLLM the
first request comes after one gap, not at 0.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sim.errors import ConfigError
from sim.units import NS_PER_S, ns_from_s
from workloads.limits import MAX_REQUESTS, MAX_TIME_S

_BLOCK = 1024


def open_loop_ns(
    rng: np.random.Generator,
    *,
    request_rate: float,
    burstiness: float,
    num_requests: int | None,
    duration_s: float | None,
) -> NDArray[np.int64]:
    """Arrival times of requests that do not wait for each other.

    Times at another rate are the same unit-rate gaps divided by it, each rounded to
    the nanosecond (common random numbers).

    Args:
        rng: Stream of the arrivals, from its start.
        request_rate: Mean requests per second; ``inf`` sends all at 0.
        burstiness: Gamma shape, 1 / CV**2 of the gaps; ``inf`` for constant gaps.
        num_requests: At most so many, or None for no limit.
        duration_s: Only arrivals in [0, duration), or None for no limit.

    Returns:
        Non-decreasing times in ns, shape (n,).

    Raises:
        ConfigError: If neither limit bounds the number of requests, or too far away.
    """
    if duration_s is None or math.isinf(request_rate):
        if num_requests is None:
            raise ConfigError(
                "workload.num_requests: None; allowed: an integer >= 1, needed "
                "without duration_s and whenever request_rate is inf"
            )
        if num_requests / request_rate > MAX_TIME_S:
            raise ConfigError(
                f"workload.num_requests: {num_requests} at {request_rate!r} requests/s "
                f"is too long; allowed: a mean of at most {MAX_TIME_S:g} s"
            )
        return np.cumsum(_gaps_ns(rng, request_rate, burstiness, num_requests))
    limit = MAX_REQUESTS + 1 if num_requests is None else num_requests
    times = _window(rng, request_rate, burstiness, limit, ns_from_s(duration_s))
    if times.size > MAX_REQUESTS:
        raise ConfigError(
            f"workload.duration_s: {duration_s!r} at {request_rate!r} requests/s is too"
            f" much; allowed: at most {MAX_REQUESTS} requests"
        )
    return times


def _gaps_ns(
    rng: np.random.Generator, request_rate: float, burstiness: float, n: int
) -> NDArray[np.int64]:
    """Next ``n`` gaps in ns, rounded at once: libm's last bit must not show."""
    if math.isinf(request_rate):
        return np.zeros(n, dtype=np.int64)
    if math.isinf(burstiness):
        unit = np.ones(n)
    else:
        unit = rng.standard_gamma(burstiness, n) / burstiness
    return np.rint(unit / request_rate * NS_PER_S).astype(np.int64)


def _window(
    rng: np.random.Generator,
    request_rate: float,
    burstiness: float,
    limit: int,
    duration_ns: int,
) -> NDArray[np.int64]:
    """First ``limit`` arrivals before ``duration_ns``, drawn block by block."""
    blocks: list[NDArray[np.int64]] = []
    last_ns = drawn = 0
    while last_ns < duration_ns and drawn < limit:
        gaps = _gaps_ns(rng, request_rate, burstiness, min(_BLOCK, limit - drawn))
        blocks.append(last_ns + np.cumsum(gaps))
        drawn += gaps.size
        last_ns = int(blocks[-1][-1])
    times = np.concatenate(blocks)
    return times[times < duration_ns]
