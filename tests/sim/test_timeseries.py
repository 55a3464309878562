"""One-second bins, worked by hand."""

from __future__ import annotations

import pytest

from sim.energy import PowerModel
from sim.iteration_log import IterationLog
from sim.timeseries import run_end_ns, timeseries_table
from sim.units import NS_PER_S


def _power(idle_w: float) -> PowerModel:
    return PowerModel(
        num_gpus=1,
        run_w=0.0,
        gap_w=0.0,
        idle_w=idle_w,
        cap_w=1e9,
        hbm_pj_per_byte=0.0,
        pj_per_flop=0.0,
    )


def _log(*iterations: tuple[float, float, float]) -> IterationLog:
    """Iterations of (start s, end s, energy J) with 3 running, 1 waiting, 8 blocks."""
    log = IterationLog()
    for start_s, end_s, energy_j in iterations:
        log.start_ns.append(round(start_s * NS_PER_S))
        log.end_ns.append(round(end_s * NS_PER_S))
        log.energy_j.append(energy_j)
        log.running.append(3)
        log.waiting.append(1)
        log.used_blocks.append(8)
        log.last_end_ns = log.end_ns[-1]
    return log


def test_bins_by_hand() -> None:
    """0.5-1.5 s at 100 J and 2.25-2.5 s at 40 J, else 10 W idle."""
    log = _log((0.5, 1.5, 100.0), (2.25, 2.5, 40.0))
    series = timeseries_table([log], _power(10.0), num_blocks=16).frame
    assert series["time_s"].tolist() == [0, 1, 2]
    assert series["running"].tolist() == [0, 3, 0]
    assert series["waiting"].tolist() == [0, 1, 0]
    assert series["kv_cache_usage_perc"].tolist() == [0, 0.5, 0]
    last_w = (0.25 * 10 + 40) / 0.5
    assert series["power_w"].tolist() == pytest.approx([5 + 50, 50 + 5, last_w])


def test_replicas_add_up_and_one_may_never_work() -> None:
    """An iteration that ends at a second is over, one that starts there has begun."""
    logs = [_log((0.0, 1.0, 7.0), (1.0, 2.0, 9.0)), _log(), _log((1.0, 1.5, 1.0))]
    series = timeseries_table(logs, _power(4.0), num_blocks=16).frame
    assert series["running"].tolist() == [3, 6]
    assert series["kv_cache_usage_perc"].tolist() == [8 / 48, 16 / 48]
    assert series["power_w"].tolist() == pytest.approx([7 + 4 + 4, 9 + 4 + 1 + 2])


def test_a_run_ends_with_its_last_replica() -> None:
    """And at 0 when no replica did anything: no bins then."""
    assert run_end_ns([_log((0.0, 1.0, 7.0)), _log(), _log((1.0, 1.5, 1.0))]) == 1.5e9
    assert run_end_ns([_log(), _log()]) == 0
    assert timeseries_table([_log()], _power(4.0), num_blocks=16).frame.empty
