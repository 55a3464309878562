"""Throughput when requests never run out, against its closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.schedulers import SCHEDULERS
from tests.cases import cases
from tests.sim.pricing import LinearPricer, Scenario, limits, requests
from tests.sim.theory import SERVICE_NS, poisson_ns, replicated, simulate

every_scheduler = pytest.mark.parametrize("name", sorted(SCHEDULERS))


def makespan_ns(name: str, scenario: Scenario) -> int:
    return max(r.finish_ns or 0 for r in simulate(name, scenario))


@every_scheduler
@cases(5)
@given(
    slots=st.integers(1, 9),
    rounds=st.integers(1, 4),
    outputs=st.integers(1, 9),
    base_ns=st.integers(0, 500),
    row_ns=st.integers(1, 50),
)
def test_equal_outputs_run_at_the_decode_bound(
    name: str, slots: int, rounds: int, outputs: int, base_ns: int, row_ns: int
) -> None:
    """B slots at t0 + a B per step: B / (m (t0 + a B)) requests of m steps, exactly.

    A prompt is one token that costs what a decode does: 4 layers x a.
    """
    rows = slots * rounds * [(0, 1, outputs)]
    pricer = LinearPricer(base_ns=base_ns, row_ns=4 * row_ns, token_layer_ns=row_ns)
    at = limits(max_num_seqs=slots)
    step_ns = base_ns + 4 * row_ns * slots
    scenario = Scenario(requests(*rows), at, pricer=pricer)
    assert makespan_ns(name, scenario) == rounds * outputs * step_ns


@cases(6)
@given(
    prompts=st.lists(st.integers(1, 300), min_size=1, max_size=12),
    budget=st.integers(1, 200),
)
def test_chunks_fill_the_budget(prompts: list[int], budget: int) -> None:
    """Nothing decodes: ceil(prompt tokens / budget) iterations, whoever they are of."""
    rows = [(0, prompt, 1) for prompt in prompts]
    scenario = Scenario(requests(*rows), limits(max_num_batched_tokens=budget))
    iterations = -(-sum(prompts) // budget)
    expected = 100 * iterations + 4 * sum(prompts)
    assert makespan_ns("chunked-prefill", scenario) == expected


@pytest.mark.parametrize(
    ("budget", "groups"), [(512, 1), (1024, 2), (2048, 4), (4096, 8), (8192, 8)]
)
def test_layered_prefill_pays_the_base_once_per_group(budget: int, groups: int) -> None:
    """Batches of the whole budget, 8 layers: tokens per second = b / (g t0 + 8 b c)."""
    rows = 6 * [(0, budget // 2, 1)]
    at = limits(num_layers=8, max_num_batched_tokens=budget)
    batch_ns = 100 * groups + 8 * budget
    assert makespan_ns("layered-prefill", Scenario(requests(*rows), at)) == 3 * batch_ns


@pytest.mark.long
@pytest.mark.parametrize("name", ["chunked-prefill", "layered-prefill", "orca"])
def test_overload_of_random_lengths_leaves_at_the_decode_bound(name: str) -> None:
    """Geometric outputs of mean m: B / (m (t0 + a B)) requests per second leave.

    Arrivals come at 1.5 times that rate, so after a warm-up no slot is ever empty.
    """
    slots, mean, size, warm_up = 8, 4, 700, 100
    step_ns = SERVICE_NS // 2 + slots * SERVICE_NS
    theory = slots / (mean * step_ns)
    pricer = LinearPricer(
        base_ns=SERVICE_NS // 2, row_ns=SERVICE_NS, token_layer_ns=SERVICE_NS // 4
    )

    def rate(rng: np.random.Generator) -> list[float]:
        outputs = rng.geometric(1 / mean, size).tolist()
        arrivals = poisson_ns(rng, 1.5 * theory * SERVICE_NS, size)
        rows = [(a, 1, o) for a, o in zip(arrivals, outputs, strict=True)]
        at = limits(max_num_seqs=slots)
        records = simulate(name, Scenario(requests(*rows), at, pricer=pricer))
        finishes = sorted(r.finish_ns or 0 for r in records)
        # Until the last arrival, while others still wait.
        stop = sum(finish <= arrivals[-1] for finish in finishes)
        elapsed = finishes[stop - 1] - finishes[warm_up - 1]
        length = float(np.mean(outputs)) - mean
        return [(stop - warm_up) / elapsed / theory, length]

    measured, half_width = replicated(f"saturation {name}", rate)
    assert abs(measured - 1) < half_width < 0.03
