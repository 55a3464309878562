"""Open-loop arrivals against the gamma and Poisson laws (99.9 % intervals, z = 3.3)."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.errors import ConfigError
from sim.units import NS_PER_S
from workloads.arrivals import open_loop_ns
from workloads.streams import stream

Z = NormalDist().inv_cdf(0.9995)


def arrive(
    rate: float = 2.0,
    burstiness: float = 1.0,
    n: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    return open_loop_ns(
        stream(seed, "arrivals"),
        request_rate=rate,
        burstiness=burstiness,
        num_requests=n,
        duration_s=duration_s,
    )


def gaps_s(times_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.diff(times_ns, prepend=0) / NS_PER_S


@pytest.mark.parametrize("burstiness", [0.1, 0.84, 1.0, 4.0])
@pytest.mark.parametrize("rate", [0.5, 40.0])
def test_gaps_have_the_mean_and_cv_of_vllm_burstiness(
    rate: float, burstiness: float
) -> None:
    """Mean 1/rate and CV 1/sqrt(k); var(CV^) = CV^2/n * (1 + 1/k)/2 (delta method)."""
    n = 200_000
    gaps = gaps_s(arrive(rate, burstiness, n))
    cv = 1 / math.sqrt(burstiness)
    assert gaps.mean() == pytest.approx(1 / rate, abs=Z * cv / rate / math.sqrt(n))
    cv_error = cv * math.sqrt((1 + 1 / burstiness) / 2 / n)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=Z * cv_error)


def test_burstiness_one_gaps_are_exponential() -> None:
    """Kolmogorov-Smirnov: sqrt(n) D < 1.95 in 99.9 % of samples."""
    n = 100_000
    u = 1 - np.exp(-3.0 * np.sort(gaps_s(arrive(3.0, 1.0, n))))
    d = np.abs(u - (np.arange(n) + 0.5) / n).max() + 0.5 / n
    assert math.sqrt(n) * d < 1.95


def test_counts_of_a_poisson_window_have_mean_and_variance_rate_times_duration() -> (
    None
):
    counts = np.array([arrive(1.5, duration_s=40.0, seed=s).size for s in range(400)])
    assert counts.mean() == pytest.approx(60, abs=Z * math.sqrt(60 / 400))
    assert counts.var(ddof=1) / 60 == pytest.approx(1, abs=Z * math.sqrt(2 / 399))


def test_first_arrival_comes_after_a_gap_not_at_zero() -> None:
    first = np.array([arrive(2.0, n=1, seed=s)[0] / NS_PER_S for s in range(2000)])
    assert first.mean() == pytest.approx(0.5, abs=Z * 0.5 / math.sqrt(2000))


@pytest.mark.parametrize("burstiness", [0.3, 1.0, 5.0])
def test_first_arrivals_of_a_longer_draw_are_the_shorter_draw(
    burstiness: float,
) -> None:
    long = arrive(burstiness=burstiness, n=5000)
    assert np.array_equal(long[:1234], arrive(burstiness=burstiness, n=1234))


@pytest.mark.parametrize("duration_s", [1.0, 700.0, 1500.0])
def test_a_window_holds_exactly_the_arrivals_before_its_end(duration_s: float) -> None:
    """Also across the blocks the window is drawn in (1500 s = about 3000 arrivals)."""
    window = arrive(duration_s=duration_s)
    enough = arrive(n=5000)
    assert enough[-1] > duration_s * NS_PER_S
    assert np.array_equal(window, enough[enough < duration_s * NS_PER_S])


def test_the_end_of_the_window_is_outside_it() -> None:
    assert arrive(4.0, math.inf, duration_s=1.0).tolist() == [
        250_000_000,
        500_000_000,
        750_000_000,
    ]


def test_with_both_limits_the_first_reached_ends_the_draw() -> None:
    assert arrive(n=10, duration_s=1e6).tolist() == arrive(n=10).tolist()
    assert arrive(n=5000, duration_s=9.0).tolist() == arrive(duration_s=9.0).tolist()


@pytest.mark.parametrize("rate", [0.7, 1.3, 64.0])
def test_gaps_at_another_rate_are_the_unit_gaps_divided_by_it(rate: float) -> None:
    unit = np.diff(arrive(1.0, n=3000), prepend=0)
    gaps = np.diff(arrive(rate, n=3000), prepend=0)
    assert np.abs(gaps - unit / rate).max() <= 0.5 + 0.5 / rate + 1e-6


def test_infinite_rate_sends_all_at_zero() -> None:
    assert arrive(math.inf, n=4).tolist() == [0, 0, 0, 0]
    assert arrive(math.inf, n=4, duration_s=1.0).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("rate", [1.0, math.inf])
def test_an_unbounded_draw_is_refused(rate: float) -> None:
    duration_s = None if rate == 1.0 else 5.0
    with pytest.raises(ConfigError, match=r"num_requests: None; allowed"):
        arrive(rate, duration_s=duration_s)


def test_too_many_arrivals_in_a_window_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workloads.arrivals.MAX_REQUESTS", 100)
    assert arrive(1.0, math.inf, duration_s=100.5).size == 100
    with pytest.raises(ConfigError, match=r"duration_s: 101.5 .* at most 100"):
        arrive(1.0, math.inf, duration_s=101.5)


def test_times_that_would_overflow_nanoseconds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_requests: 10000000 at 0.001"):
        arrive(0.001, n=10_000_000)
