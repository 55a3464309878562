"""Max-min sharing against cases worked out by hand and against linear programs."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from sim.machine.fluid import Fluid, run_flows
from sim.machine.max_min import Flow, Rate, max_min_rates
from tests.cases import cases

GB = 10**9


def moved(num_bytes: int, *resources: int, cap: int | None = None) -> Flow:
    return Flow(num_bytes * GB, tuple((r, 1) for r in resources), cap)


def test_two_flows_share_one_link() -> None:
    """100 GB/s: 1000 and 3000 bytes. At 50 each the first ends after 20 ns; then 2000
    bytes are left for 100 bytes/ns."""
    ends = run_flows([(0, moved(1000, 0)), (0, moved(3000, 0))], [100 * GB])
    assert ends == [20, 40]


def test_a_third_flow_joins_midway() -> None:
    """90 GB/s, 1800 bytes each. Two at 45 until 20 ns (900 left each), three at 30: the
    first two end at 50 (third: 900 left), which then has 90 to itself: 60."""
    flows = [(0, moved(1800, 0)), (0, moved(1800, 0)), (20, moved(1800, 0))]
    assert run_flows(flows, [90 * GB]) == [50, 50, 60]


def test_a_flow_over_two_links_is_held_by_the_fuller_one() -> None:
    """Links of 10 and 8. A on both, B and C on the first, D on the second.

    The first is the bottleneck of A, B, C at 10/3; D gets what A leaves of the second.
    """
    flows = [moved(1, 0, 1), moved(1, 0), moved(1, 0), moved(1, 1)]
    third = Fraction(10, 3)
    assert max_min_rates(flows, [10, 8]) == [third, third, third, 8 - third]


def test_a_chain_of_bottlenecks() -> None:
    """Links 4, 10, 30: A on all, B on the first two, C on the last two, D on the last.

    First A = B = 2; then C = 10 - 4 = 6; then D = 30 - 2 - 6 = 22.
    """
    flows = [moved(1, 0, 1, 2), moved(1, 0, 1), moved(1, 1, 2), moved(1, 2)]
    assert max_min_rates(flows, [4, 10, 30]) == [2, 2, 6, 22]


def test_a_capped_flow_leaves_the_rest_to_the_others() -> None:
    assert max_min_rates([moved(1, 0, cap=2), moved(1, 0), moved(1, 0)], [12]) == [
        *(2, 5, 5)
    ]


def test_a_weight_takes_more_of_a_resource_at_the_same_rate() -> None:
    flows = [Flow(1, ((0, 2),)), Flow(1, ((0, 1),))]
    assert max_min_rates(flows, [9]) == [3, 3]


def test_a_flow_alone_runs_at_its_cap_for_exactly_its_time() -> None:
    rate, ns = 3_349_999_999_999, 12_345
    assert run_flows([(7, Flow(rate * ns, ((0, 1),), rate))], [rate]) == [7 + ns]


def test_a_flow_alone_with_a_cap_above_its_link_runs_at_the_link() -> None:
    assert run_flows([(0, moved(10, 0, cap=20 * GB))], [5 * GB]) == [2]


def test_an_end_between_nanoseconds_is_the_next_whole_one() -> None:
    assert run_flows([(0, moved(10, 0))], [3 * GB]) == [4]


def test_rates_return_to_their_own_when_the_contention_is_over() -> None:
    """Capacity 10 bytes/ns; 6 wanted by each. 60 and 120 bytes: 5 each until 12 ns.

    Then 60 are left at 6: 22 ns. Another flow of 4 bytes/ns at 15 still leaves 6.
    """
    flows = [
        (0, moved(60, 0, cap=6 * GB)),
        (0, moved(120, 0, cap=6 * GB)),
        (15, moved(20, 0, cap=4 * GB)),
    ]
    assert run_flows(flows, [10 * GB]) == [12, 22, 20]


def test_an_empty_machine_has_no_end() -> None:
    assert Fluid([1]).next_end_ns() is None


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[Flow], list[int]]:
    """Up to 6 flows on up to 4 resources, with weights and caps."""
    capacities = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    resources = st.sets(st.integers(0, len(capacities) - 1), min_size=1)
    flows = []
    for _ in range(draw(st.integers(1, 6))):
        uses = tuple((r, draw(st.integers(1, 3))) for r in sorted(draw(resources)))
        cap = draw(st.none() | st.integers(1, 40))
        flows.append(Flow(draw(st.integers(1, 500)) * GB, uses, cap))
    return flows, capacities


def filled_by_programs(flows: list[Flow], capacities: list[int]) -> list[float]:
    """Max-min rates by linear programs: raise the least, fix who cannot rise, again."""
    count = len(flows)
    usage = np.zeros((len(capacities), count))
    for i, flow in enumerate(flows):
        for resource, weight in flow.uses:
            usage[resource, i] = weight
    bounds: list[tuple[float, float | None]] = [(0.0, flow.cap) for flow in flows]
    fixed: set[int] = set()
    rows = np.hstack([usage, np.zeros((len(capacities), 1))])
    while len(fixed) < count:
        # Variables: rates and the level, which no rate that is not fixed is below.
        below = np.zeros((count - len(fixed), count + 1))
        for row, i in enumerate(i for i in range(count) if i not in fixed):
            below[row, i], below[row, count] = -1.0, 1.0
        found = linprog(
            np.r_[np.zeros(count), -1.0],
            np.vstack([rows, below]),
            np.r_[capacities, np.zeros(len(below))],
            bounds=[*bounds, (0.0, None)],
        )
        level = found.x[count]
        before = len(fixed)
        for i in [i for i in range(count) if i not in fixed]:
            floors = [
                (b if j in fixed else (level - 1e-9, b[1]))
                for j, b in enumerate(bounds)
            ]
            most = linprog(-np.eye(count)[i], usage, capacities, bounds=floors)
            if -most.fun <= level + 1e-6:
                bounds[i] = (level - 1e-9, level)
                fixed.add(i)
        assert len(fixed) > before
    return [high for _, high in bounds if high is not None]


@cases(15)
@given(networks())
def test_random_networks_against_linear_programs(
    network: tuple[list[Flow], list[int]],
) -> None:
    flows, capacities = network
    expected = filled_by_programs(flows, capacities)
    assert [float(r) for r in max_min_rates(flows, capacities)] == pytest.approx(
        expected, rel=1e-5
    )


@cases(25)
@given(networks(), st.lists(st.integers(0, 400), min_size=6, max_size=6))
def test_nothing_is_over_capacity_and_every_byte_arrives(
    network: tuple[list[Flow], list[int]], starts: list[int]
) -> None:
    """Integrates the rates told to a watcher, apart from what the fluid keeps."""
    flows, slow = network
    capacities = [c * GB for c in slow]
    flows = [flow._replace(cap=flow.cap and flow.cap * GB) for flow in flows]
    times = sorted(starts[: len(flows)])
    told: list[tuple[int, dict[int, Rate]]] = []
    ends = run_flows(
        list(zip(times, flows, strict=True)),
        capacities,
        lambda now_ns, rates: told.append((now_ns, rates)),
    )
    done: list[Rate] = [0] * len(flows)
    for (since, rates), (until, _) in pairwise(told):
        for resource, capacity in enumerate(capacities):
            load = sum(
                weight * rate
                for key, rate in rates.items()
                for used, weight in flows[key].uses
                if used == resource
            )
            assert load <= capacity
        for key, rate in rates.items():
            assert times[key] <= since <= until <= ends[key]
            done[key] += rate * (until - since)
    for key, flow in enumerate(flows):
        # The last nanosecond may be begun and not needed whole.
        over = done[key] - flow.size
        assert 0 <= over < max_min_rates([flow], capacities)[0]
