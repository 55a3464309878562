"""Engines that decide an iteration when the one before it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calibration.cases import select_cases
from calibration.engine_profiles import engine_profile, profile_names
from sim.build_cluster import _engines
from sim.config_file import load_config
from sim.queues.ahead import ScheduledAhead
from sim.queues.sjf import ShortestJobFirst
from sim.queues.vtc import VirtualTokenCounter
from sim.runner import prepare
from sim.validate import case_errors
from tests.sim.pricing import LinearPricer, Scenario, limits, requests, serve

LOG = (
    Path(__file__).parents[3]
    / "shared/measured/llmservingsim_rtxpro6000_llama3.1-8b_tp1.csv"
)
# Iterations of 100 ns, and 10 ns more per prompt token.
PRICER = LinearPricer(base_ns=100, row_ns=0, context_ns=0, token_layer_ns=10)


def first_tokens(*rows: tuple[int, int, int], ahead: bool) -> list[int]:
    """When the first token of each request left, chunks of 16 tokens."""
    at = limits(num_layers=1, max_num_batched_tokens=16)
    case = Scenario(requests(*rows), at, pricer=PRICER)
    served = serve("chunked-prefill", replace(case, ahead=ahead))
    return [tokens[0] for tokens in served.tokens]


def test_who_comes_late_waits_through_one_more_iteration() -> None:
    """The first prompt ends at 140 ns, its decodes at 240, 340, 440, ...

    A prompt of 4 tokens takes an iteration of 140 ns: decided at 340 ns at the earliest
    where nothing is ahead, and where it is, in the iteration after the one to 440 ns.
    """
    rows = ((0, 4, 20), (250, 4, 1))
    assert first_tokens(*rows, ahead=False) == [140, 340 + 140]
    assert first_tokens(*rows, ahead=True) == [140, 440 + 140]


def test_at_the_end_of_an_iteration_the_next_is_decided() -> None:
    """Who comes at 240 ns: the iteration to 340 ns is decided, the one after it not."""
    rows = ((0, 4, 20), (240, 4, 1))
    assert first_tokens(*rows, ahead=True) == [140, 340 + 140]


def test_an_idle_engine_takes_anyone_at_once() -> None:
    """Two come together; the engine, idle again from 160 ns, takes the last at once."""
    rows = ((0, 3, 1), (0, 3, 1), (500, 4, 1))
    assert first_tokens(*rows, ahead=True) == [160, 160, 640]


def test_nothing_else_to_do_is_nothing_decided() -> None:
    """One comes during the last iteration of the only other request."""
    rows = ((0, 4, 1), (50, 4, 1))
    assert first_tokens(*rows, ahead=True) == [140, 280]


def test_one_who_was_seen_makes_the_next_one_late() -> None:
    """Two at a time, and all that ran end together: 0 to 180 ns, 180 to 360 ns.

    A fifth, of 50 ns like the two of the second iteration, was there when that began
    and is scheduled for 360 ns; one of 300 ns is not, though a slot is free: 500 ns.
    """
    rows = ((0, 4, 1), (0, 4, 1), (50, 4, 1), (50, 4, 1), (50, 4, 1), (300, 4, 1))
    at = limits(num_layers=1, max_num_seqs=2)
    for ahead, last in ((True, [500, 640]), (False, [540, 540])):
        case = Scenario(requests(*rows), at, pricer=PRICER, ahead=ahead)
        served = serve("chunked-prefill", case)
        times = [tokens[0] for tokens in served.tokens]
        assert times == [180, 180, 360, 360, *last]


def test_the_discipline_orders_whoever_is_not_late() -> None:
    """Of two late ones the shorter goes first, once both can."""
    rows = ((0, 4, 20), (250, 16, 1), (260, 4, 1))
    at = limits(num_layers=1, max_num_batched_tokens=16)
    case = Scenario(requests(*rows), at, pricer=PRICER, queue="sjf", ahead=True)
    longer, shorter = serve("chunked-prefill", case).tokens[1:]
    assert shorter < longer


def test_the_discipline_is_told_what_was_decoded() -> None:
    """VTC charges prompts of 4 and 6 tokens, and twice each of 5 output tokens."""
    rows = requests((0, 4, 5), (0, 6, 5))
    work = tuple(replace(request, client=request.id) for request in rows)
    case = Scenario(work, limits(), pricer=PRICER, queue="vtc", ahead=True)
    (engine,) = serve("chunked-prefill", case).engines
    assert isinstance(engine.waiting, ScheduledAhead)
    assert isinstance(engine.waiting.behind, VirtualTokenCounter)
    assert engine.waiting.behind.served == {0: 14, 1: 16}


def test_profiles_say_who_schedules_ahead() -> None:
    ahead = {name for name in profile_names() if engine_profile(name).async_scheduling}
    assert ahead == {"vllm-0.11", "vllm-0.18", "sglang-0.5", "trtllm-1.3"}


@pytest.mark.parametrize("name", ["vllm-0.10", "vllm-0.18"])
def test_its_replicas_do_whatever_the_discipline(name: str) -> None:
    settings = {"calibration.profile": name, "engine.queue": "sjf"}
    prepared = prepare(load_config(None, (), settings))
    (engine,) = _engines(prepared.config, prepared.machine, 0)
    queue = engine.waiting
    if engine_profile(name).async_scheduling:
        assert isinstance(queue, ScheduledAhead)
        queue = queue.behind
    assert isinstance(queue, ShortestJobFirst)


def test_the_front_end_time_is_what_the_measured_case_leaves() -> None:
    """``vllm-0.18``: its case at four at a time is met; it is calibration."""
    errors = case_errors(select_cases("ix-gptoss-h100-tp2-1k1k-c4"), jobs=1)
    (ttft,) = errors[errors["metric"] == "mean_ttft_ms"].itertuples()
    assert ttft.kind == "calibration"
    assert abs(ttft.predicted - ttft.measured) < 2.5  # half an iteration


@pytest.mark.skipif(not LOG.exists(), reason="no per-request log here")
def test_most_of_the_wait_for_the_queue_is_the_iteration_under_way() -> None:
    """The log behind ``vllm-0.10``: waits are long where iterations are, not idle."""
    log = pd.read_csv(LOG)
    waits_ms = 1e3 * (log["queued_s"] - log["arrival_s"]).to_numpy()
    idle_ms = engine_profile("vllm-0.10").frontend_ns / 1e6
    assert idle_ms == pytest.approx(waits_ms[0], abs=0.01)
    assert np.percentile(waits_ms, 5) < 1.5 * idle_ms < 0.1 * waits_ms.mean()
