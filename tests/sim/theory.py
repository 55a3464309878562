"""Queueing theory in numbers, and the runs it is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from sim.engine import Engine
from sim.request import RequestRecord
from sim.routers import ROUTERS
from sim.shell.cluster import Cluster
from tests.sim.pricing import LinearPricer, Scenario, limits, requests, scheduler
from workloads.streams import stream

SERVICE_NS = 1_000_000
REPLICATIONS = 20
SEED = 20251109


def simulate(name: str, scenario: Scenario) -> tuple[RequestRecord, ...]:
    """Records of a long run, whose plans are not kept."""
    engines = [
        Engine(scheduler(name, scenario.at), scenario.at, scenario.num_blocks)
        for _ in range(scenario.replicas)
    ]
    router = ROUTERS[scenario.router]()
    cluster = Cluster(engines, scenario.pricer, router, scenario.max_concurrency)
    return cluster.run(scenario.requests).records


def queue(
    arrivals_ns: Sequence[int], services_ns: Sequence[int], servers: int = 1
) -> Scenario:
    """First come, first served, by servers that take a prompt at 1 ns per token.

    A server is a replica with one sequence. With several, clients hold requests until
    one is free (``max_concurrency``), which makes the line a central one.
    """
    rows = [(a, s, 1) for a, s in zip(arrivals_ns, services_ns, strict=True)]
    huge = 1 << 60
    return Scenario(
        requests(*rows),
        limits(
            num_layers=1,
            max_num_seqs=1,
            max_num_batched_tokens=huge,
            max_model_len=huge,
        ),
        num_blocks=huge,
        replicas=servers,
        max_concurrency=None if servers == 1 else servers,
        pricer=LinearPricer(base_ns=0, row_ns=0, token_layer_ns=1),
    )


def lindley_waits(arrivals: Sequence[int], services: Sequence[int]) -> list[int]:
    """W(n + 1) = max(0, W(n) + S(n) - A(n)), A the gap to the next (Lindley 1952)."""
    waits = [0]
    for n in range(len(arrivals) - 1):
        gap = arrivals[n + 1] - arrivals[n]
        waits.append(max(0, waits[n] + services[n] - gap))
    return waits


def kiefer_wolfowitz_waits(
    arrivals: Sequence[int], services: Sequence[int], servers: int
) -> list[int]:
    """The wait is the least of the servers' sorted workloads (Kiefer, Wolfowitz 1955).

    The next request finds R((w1 + S, w2, ..., wc) - A), cut at 0 and sorted.
    """
    workloads, waits, last = servers * [0], [], 0
    for arrival, service in zip(arrivals, services, strict=True):
        workloads = sorted(max(0, w - (arrival - last)) for w in workloads)
        waits.append(workloads[0])
        workloads[0] += service
        last = arrival
    return waits


def replicated(
    name: str, sample: Callable[[np.random.Generator], float | Sequence[float]]
) -> tuple[float, float]:
    """Mean and half width of its 99 % Student interval over independent streams.

    The interval misses one time in a hundred by chance; seed and ``name`` fix the
    streams, so that a test that passes goes on doing so.

    A sample is a value, or a value and controls: quantities of the same replication
    whose expectation is exactly 0. What is linear in the controls is taken off the
    values (control variates; Lavenberg and Welch 1981), which narrows the interval.
    """
    streams = [stream(SEED, f"{name}/{k}") for k in range(REPLICATIONS)]
    rows = np.array([np.atleast_1d(sample(rng)) for rng in streams])
    values, controls = rows[:, 0], rows[:, 1:]
    design = np.column_stack((np.ones(REPLICATIONS), controls))
    fit = np.linalg.lstsq(design, values)[0]
    freedom = REPLICATIONS - design.shape[1]
    residual = values - design @ fit
    variance = float(residual @ residual) / freedom
    # Variance of the intercept: the mean at controls of 0.
    spread = float(np.linalg.inv(design.T @ design)[0, 0])
    half_width = float(stats.t.ppf(0.995, freedom)) * math.sqrt(variance * spread)
    return float(fit[0]), half_width


def poisson_ns(rng: np.random.Generator, rate: float, n: int) -> list[int]:
    """Arrival times of a Poisson process of ``rate`` per ``SERVICE_NS``."""
    times = np.cumsum(rng.exponential(SERVICE_NS / rate, n))
    return [round(time) for time in times.tolist()]


def erlang_c(servers: int, load: float) -> float:
    """Chance to wait in M/M/c offered ``load`` erlangs (Erlang 1917)."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (math.fsum(terms) + last)


def batching_chain(
    rate: float, t0: float, per_row: float, slots: int, leave: float, states: int = 160
) -> float:
    """Mean time in system of continuous batching, from the chain at step starts.

    q requests, b = min(q, slots) run for s = t0 + per_row b; Binomial(b, leave)
    leave, Poisson(rate s) come; an empty system waits for one arrival. With pi the
    stationary law over q >= 1 and p0(q) the chance that a step leaves none,
    L = sum pi (q s + rate s^2 / 2) / sum pi (s + p0 / rate), W = L / rate.
    """
    q = np.arange(1, states + 1)
    b = np.minimum(q, slots)
    s = t0 + per_row * b
    step = np.zeros((states, states + 1))
    for i in range(states):
        left = [
            math.comb(int(b[i]), d) * leave**d * (1 - leave) ** (int(b[i]) - d)
            for d in range(int(b[i]) + 1)
        ]
        come = np.empty(states + 1)
        come[0] = math.exp(-rate * s[i])
        for k in range(states):
            come[k + 1] = come[k] * rate * s[i] / (k + 1)
        for d, chance in enumerate(left):
            rest = int(q[i]) - d
            width = states + 1 - rest
            step[i, rest:] += chance * come[:width]
            step[i, -1] += chance * come[width:].sum()
    empty = step[:, 0].copy()
    moves = step[:, 1:].copy()
    moves[:, 0] += empty
    # pi = pi moves and sum pi = 1, which takes the place of one equation.
    equations = moves.T - np.eye(states)
    equations[-1] = 1.0
    pi = np.linalg.solve(equations, np.eye(states)[-1])
    assert abs(pi[-1]) < 1e-9
    area = (pi * (q * s + rate * s**2 / 2)).sum()
    return float(area / (pi * (s + empty / rate)).sum() / rate)
