"""Continuous batching against its exact Markov chain, within one per cent."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sim.pricing import LinearPricer, Scenario, limits, requests
from tests.sim.theory import (
    SERVICE_NS,
    batching_chain,
    lindley_waits,
    poisson_ns,
    replicated,
    simulate,
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "rate", "t0", "per_row", "slots", "tokens", "size"),
    [
        pytest.param("static", 0.6, 0.5, 1.0, 250, 1, 10_000, id="dynamic"),
        pytest.param("orca", 0.6, 0.5, 1.0, 8, 1, 10_000, id="dynamic, 8 slots"),
        pytest.param("chunked-prefill", 0.2, 1.0, 0.1, 8, 16, 6_000, id="8 slots"),
        pytest.param("layered-prefill", 0.3, 1.0, 0.02, 32, 50, 6_000, id="32 slots"),
    ],
)
def test_mean_time_in_system(
    name: str,
    rate: float,
    t0: float,
    per_row: float,
    slots: int,
    tokens: int,
    size: int,
) -> None:
    """The chain lies in a 99 % interval of half width at most 1 %.

    A step takes t0 + per_row x batch; requests are geometric with mean ``tokens``
    steps, and a one-token prompt costs what a decode does. Outputs of one token make
    static batching the dynamic batching of Inoue (arXiv 1912.06322).
    """
    warm_up = 500
    row_ns = round(per_row * SERVICE_NS)
    pricer = LinearPricer(
        base_ns=round(t0 * SERVICE_NS), row_ns=row_ns, token_layer_ns=row_ns // 4
    )

    # The single server with the same requests and the same capacity: a control.
    service = (t0 + per_row * slots) / slots
    second_moment = service**2 * (2 * tokens**2 - tokens)
    line_wait = rate * second_moment / (2 * (1 - rate * tokens * service))

    def mean_time(rng: np.random.Generator) -> list[float]:
        outputs = rng.geometric(1 / tokens, size).tolist()
        arrivals = poisson_ns(rng, rate, size)
        rows = [(a, 1, o) for a, o in zip(arrivals, outputs, strict=True)]
        scenario = Scenario(requests(*rows), limits(max_num_seqs=slots), pricer=pricer)
        records = simulate(name, scenario)[warm_up:]
        times = [(r.finish_ns or 0) - r.arrival_ns for r in records]
        services = [round(service * SERVICE_NS * o) for o in outputs]
        waits = lindley_waits(arrivals, services)[warm_up:]
        lengths = [float(np.mean(outputs)) - tokens] if tokens > 1 else []
        return [
            float(np.mean(times)) / SERVICE_NS,
            float(np.mean(waits)) / SERVICE_NS - line_wait,
            arrivals[-1] / SERVICE_NS / size - 1 / rate,
            *lengths,
        ]

    mean, half_width = replicated(f"{name}, {slots} slots", mean_time)
    theory = batching_chain(rate, t0, per_row, slots, 1 / tokens, states=250)
    assert abs(mean - theory) < half_width <= 0.01 * theory
