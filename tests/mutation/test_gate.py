"""The mutation gate itself: museum 18 is a gate that passed because nothing ran."""

from __future__ import annotations

import pytest

from tests.mutation.gate import LEAST_RUN, GateError, report


def results(killed: int, survived: int, unchecked: int = 0) -> str:
    """As mutmut prints them."""
    statuses = ["killed"] * killed + ["survived"] * survived
    statuses += ["not checked"] * unchecked
    return "".join(
        f"    sim.{'engine' if i % 2 else 'metrics'}.x_f__mutmut_{i}: {status}\n"
        for i, status in enumerate(statuses)
    )


@pytest.mark.parametrize("text", ["", "Traceback\nno such command\n", results(1, 0)])
def test_a_run_without_mutants_fails(text: str) -> None:
    """None, an error, or a handful."""
    with pytest.raises(GateError, match="mutants ran; at least"):
        report(text)


def test_rates_are_by_module_and_for_all() -> None:
    lines = report(results(LEAST_RUN, 2)).splitlines()
    assert lines == [
        f"sim.engine: 250 of {LEAST_RUN // 2 + 1} killed (99.6%)",
        f"sim.metrics: 250 of {LEAST_RUN // 2 + 1} killed (99.6%)",
        f"all: {LEAST_RUN} of {LEAST_RUN + 2} killed (99.6%)",
    ]


def test_survivors_and_unfinished_runs_fail() -> None:
    """One in nine survives; one was never tried."""
    with pytest.raises(GateError, match="killed, under 90%"):
        report(results(LEAST_RUN, LEAST_RUN // 8))
    with pytest.raises(GateError, match="1 mutants were not run"):
        report(results(LEAST_RUN, 0, 1))
