"""Latency metrics against hand-worked numbers and NumPy."""

from __future__ import annotations

import math
from array import array
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.metrics import (
    PERCENTILES,
    LatencySample,
    Slo,
    latency_metrics,
    latency_sample,
    meets_slo,
    summarise,
    token_times_ns,
)
from sim.request import Request, RequestRecord, TokenRun
from sim.token_gaps import pooled_ms
from sim.weighted import Weighted
from tests.sim.pricing import QUICK, Scenario, limits, requests, scenarios, serve

MS = 1_000_000

# Two replicas; decode iterations of the first end at 10, 20, 30, 45 and 70 ms, of the
# second at 5 and 6 ms.
ENDS = (
    array("q", [10 * MS, 20 * MS, 30 * MS, 45 * MS, 70 * MS]),
    array("q", [5 * MS, 6 * MS]),
)


def record(
    request_id: int, arrival_ms: int, *runs: tuple[int, int, int], replica: int = 0
) -> RequestRecord:
    """A finished request with (first token ms, start, stop) runs."""
    made = RequestRecord(
        request=Request(
            id=request_id, arrival_ns=arrival_ms * MS, prompt_tokens=3, output_tokens=9
        ),
        arrival_ns=arrival_ms * MS,
        replica=replica,
        runs=[TokenRun(first * MS, start, stop) for first, start, stop in runs],
    )
    times = [int(t) for t in token_times_ns(made, np.asarray(ENDS[replica]))]
    made.output_tokens = len(times)
    made.first_token_ns, made.finish_ns = times[0], times[-1]
    return made


ONE = record(0, 2, (8, 0, 3))  # 8, 10, 20, 30: gaps 2, 10, 10
PREEMPTED = record(1, 8, (10, 1, 2), (40, 3, 5))  # 10, 20, 40, 45, 70: 10, 20, 5, 25
SINGLE = record(2, 1, (31, 3, 3))  # 31: no gap
OTHER = record(3, 0, (4, 0, 2), replica=1)  # 4, 5, 6: gaps 1, 1
REJECTED = RequestRecord(
    request=Request(id=4, arrival_ns=0, prompt_tokens=99, output_tokens=9),
    arrival_ns=0,
    rejected="too long",
    runs=[],
)
ALL = [ONE, PREEMPTED, SINGLE, OTHER, REJECTED]


def written_out(sample: LatencySample) -> list[float]:
    """Every gap (ms), sorted."""
    pooled = sample.itl_ms
    return sorted(np.repeat(pooled.values, pooled.counts).tolist())


def test_token_times_join_the_runs_of_a_preempted_request() -> None:
    """Each run has a first token of its own, then decodes."""
    times = token_times_ns(PREEMPTED, np.asarray(ENDS[0]))
    assert times.tolist() == [10 * MS, 20 * MS, 40 * MS, 45 * MS, 70 * MS]
    assert token_times_ns(REJECTED, np.asarray(ENDS[0])).size == 0


def test_sample_by_hand() -> None:
    """TTFT, E2E and gaps of the finished requests; rejected ones are left out."""
    sample = latency_sample(ALL, ENDS)
    assert sample.ttft_ns.tolist() == [6 * MS, 2 * MS, 30 * MS, 4 * MS]
    assert sample.e2el_ns.tolist() == [28 * MS, 62 * MS, 30 * MS, 6 * MS]
    assert sample.output_tokens.tolist() == [4, 5, 1, 3]
    assert written_out(sample) == sorted([2, 10, 10, 10, 20, 5, 25, 1, 1])
    assert sample.itl_ms.counts.min() == 1  # no gap that nobody had
    assert sample.worst_itl_ns.tolist() == [10 * MS, 25 * MS, 0, 1 * MS]
    assert sample.tpot_ms.tolist() == pytest.approx([22 / 3, 15.0, 1.0])


def test_metrics_by_hand() -> None:
    """Means and medians under the names of ``vllm bench serve``."""
    metrics = latency_metrics(latency_sample(ALL, ENDS))
    assert metrics["mean_ttft_ms"] == pytest.approx(42 / 4)
    assert metrics["median_ttft_ms"] == pytest.approx(5.0)
    assert metrics["std_ttft_ms"] == pytest.approx(
        math.sqrt((36 + 4 + 900 + 16) / 4 - 10.5**2)
    )
    assert metrics["mean_itl_ms"] == pytest.approx(84 / 9)
    assert metrics["median_itl_ms"] == pytest.approx(10.0)
    assert metrics["mean_tpot_ms"] == pytest.approx((22 / 3 + 16) / 3)
    assert metrics["p99_e2el_ms"] == pytest.approx(30 + 0.97 * 32)  # rank 0.99 x 3


def met(slo: Slo) -> list[bool]:
    return [bool(ok) for ok in meets_slo(latency_sample(ALL, ENDS), slo)]


@pytest.mark.parametrize(
    ("slo", "expected"),
    [
        (Slo(), [True, True, True, True]),
        (Slo(ttft_ms=6.0), [True, True, False, True]),
        (Slo(ttft_ms=5.999999), [False, True, False, True]),
        (Slo(itl_ms=10.0), [True, False, True, True]),
        (Slo(itl_ms=9.0), [False, False, True, True]),
        (Slo(tpot_ms=15.0), [True, True, True, True]),
        (Slo(tpot_ms=14.9), [True, False, True, True]),
        (Slo(tpot_ms=0.0), [False, False, True, False]),
        (Slo(e2el_ms=29.0), [True, False, False, True]),
        (Slo(ttft_ms=6.0, itl_ms=10.0), [True, False, False, True]),
        (Slo(ttft_ms=29.0, e2el_ms=40.0), [True, False, False, True]),
    ],
)
def test_slo_semantics(slo: Slo, expected: list[bool]) -> None:
    """All limits, inclusive; one bad gap fails; a single token has TPOT and ITL 0."""
    assert met(slo) == expected


def test_one_bad_gap_fails_although_the_mean_is_good() -> None:
    """TPOT averages gaps, ITL does not: 20 and 25 ms are hidden by a mean of 15."""
    assert met(Slo(tpot_ms=15.0))[1]
    assert not met(Slo(itl_ms=15.0))[1]


@QUICK
@given(
    st.lists(
        st.floats(0, 1e7, allow_subnormal=False) | st.sampled_from([0.0, 5.0]),
        min_size=1,
        max_size=60,
    )
)
def test_summary_equals_numpy(values: list[float]) -> None:
    """Mean, population std, median and linear percentiles."""
    summary = summarise(Weighted.of(values), "x")
    assert list(summary) == [
        "mean_x_ms",
        "median_x_ms",
        "std_x_ms",
        *(f"p{p}_x_ms" for p in PERCENTILES),
    ]
    assert summary["mean_x_ms"] == pytest.approx(np.mean(values))
    assert summary["median_x_ms"] == pytest.approx(np.median(values))
    assert summary["std_x_ms"] == pytest.approx(np.std(values), rel=1e-6, abs=1e-6)
    for p in PERCENTILES:
        expected = np.percentile(values, p, method="linear")
        assert summary[f"p{p}_x_ms"] == pytest.approx(expected)


@QUICK
@given(
    st.lists(
        st.tuples(st.floats(1e-6, 1e7), st.integers(0, 40)), min_size=1, max_size=30
    ).filter(lambda pairs: any(count for _, count in pairs))
)
def test_counted_samples_are_those_written_out(pairs: list[tuple[float, int]]) -> None:
    """To the last bit: exact sums, and NumPy's interpolation of percentiles."""
    values, counts = (np.array(column) for column in zip(*pairs, strict=True))
    sample, flat = Weighted(values, counts), np.repeat(values, counts)
    assert sample.size == flat.size
    mean = math.fsum(flat.tolist()) / flat.size
    assert sample.mean() == mean
    off = flat - mean
    assert sample.std() == math.sqrt(math.fsum((off * off).tolist()) / flat.size)
    points = [0, 5, 25, 50, 90, 99, 100]
    assert sample.percentiles(points) == np.percentile(flat, points).tolist()


@pytest.mark.parametrize(
    ("pair", "percent"), [((0.1, 0.5), 50), ((0.1, 0.4), 75), ((0.1, 0.8), 50)]
)
def test_percentiles_round_as_numpy_rounds(
    pair: tuple[float, float], percent: int
) -> None:
    """From the nearer of two values, the upper one half-way: a bit apart here."""
    low, high = pair
    expected = float(np.percentile(pair, percent))
    assert expected != low + (high - low) * percent / 100
    assert Weighted.of(pair).percentiles([percent]) == [expected]


def test_a_sample_is_of_floats_that_integers_count() -> None:
    """Also one of integers, whose sums are exact all the same."""
    sample = Weighted.of([1, 2])
    assert (sample.values.dtype, sample.counts.dtype) == (np.float64, np.int64)
    assert pooled_ms([]).size == 0


def test_a_count_too_large_to_add_exactly_is_refused() -> None:
    assert Weighted(np.array([3.0]), np.array([1 << 26])).mean() == 3.0
    with pytest.raises(OverflowError, match="67108864"):
        Weighted(np.array([1.0]), np.array([1 << 27])).mean()


def test_nothing_finished_has_no_latencies() -> None:
    """None, never NaN or zero."""
    metrics = latency_metrics(latency_sample([REJECTED], ENDS))
    assert len(metrics) == 4 * (3 + len(PERCENTILES))
    assert set(metrics.values()) == {None}


def test_no_several_token_request_has_no_tpot() -> None:
    """A single token has a TTFT but neither TPOT nor ITL."""
    metrics = latency_metrics(latency_sample([SINGLE], ENDS))
    assert metrics["mean_ttft_ms"] == pytest.approx(30.0)
    assert metrics["mean_tpot_ms"] is None
    assert metrics["p99_itl_ms"] is None


@QUICK
@given(scenario=scenarios(max_replicas=2))
def test_metric_identities(scenario: Scenario) -> None:
    """E2E = TTFT + its gaps; TPOT (n - 1) = its gaps; worst gap is the largest."""
    served = serve("layered-prefill", scenario)
    finished = [r for r in served.run.records if r.finish_ns is not None]
    ends = [log.decode_end_ns for log in served.run.logs]
    sample = latency_sample(served.run.records, ends)
    gaps = [np.diff(served.tokens_ns(record)) for record in finished]
    pooled = np.concatenate(gaps) if gaps else np.empty(0)
    assert written_out(sample) == sorted((pooled / 1e6).tolist())
    assert sample.ttft_ns.size == len(finished)
    for i, own in enumerate(gaps):
        assert sample.e2el_ns[i] == sample.ttft_ns[i] + own.sum()
        assert sample.worst_itl_ns[i] == (own.max() if own.size else 0)
    expected = [own.sum() / own.size / 1e6 for own in gaps if own.size]
    assert sample.tpot_ms.tolist() == pytest.approx(expected)


def test_slo_agrees_with_a_literal_loop() -> None:
    """Counts of a run equal those of a loop over every token of every request."""
    rows = [(i * 137, 5 + i % 7, 1 + i % 6) for i in range(40)]
    served = serve("chunked-prefill", Scenario(requests(*rows), limits(max_num_seqs=4)))
    ends = [log.decode_end_ns for log in served.run.logs]
    sample: LatencySample = latency_sample(served.run.records, ends)
    slo = Slo(ttft_ms=1200e-6, itl_ms=170e-6)
    expected = []
    for r in served.run.records:
        times = served.tokens_ns(r)
        good = times[0] - r.arrival_ns <= 1200
        for earlier, later in pairwise(times):
            good = good and later - earlier <= 170
        expected.append(good)
    assert 5 < sum(expected) < 35
    assert meets_slo(sample, slo).tolist() == expected


def test_the_one_gap_of_two_tokens_is_their_tpot() -> None:
    """Tokens at 10 and 30 ms: 20 ms per output token, not the mean over both."""
    two = record(5, 0, (10, 2, 3))
    sample = latency_sample([two], ENDS)
    assert sample.tpot_ms.tolist() == [20.0]
    assert meets_slo(sample, Slo(tpot_ms=20.0)).tolist() == [True]
    assert meets_slo(sample, Slo(tpot_ms=19.9)).tolist() == [False]


def test_an_empty_summary_has_the_keys_of_a_full_one() -> None:
    """A table of results has the same columns whatever was served."""
    one = summarise(Weighted.of([1.0]), "x")
    assert list(summarise(Weighted.of([]), "x")) == list(one)


def test_times_stay_integers_where_there_are_none() -> None:
    """Empty arrays too: sums of latencies are exact."""
    sample = latency_sample([], ENDS)
    names = set(LatencySample.__slots__) - {"itl_ms"}
    arrays = [getattr(sample, name) for name in names]
    arrays += [token_times_ns(REJECTED, np.asarray(ENDS[0]))]
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}
