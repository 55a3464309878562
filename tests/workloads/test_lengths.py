"""Length samplers: bounds, margins, correlation, prefix property."""

import math

import numpy as np
import pytest

from sim.errors import ConfigError
from workloads.datasets import DATASETS
from workloads.lengths import Lengths, LengthSampler, QuantileLengths, RandomLengths
from workloads.spec import WorkloadSpec
from workloads.streams import stream


def draw(sampler: LengthSampler, n: int, seed: int = 0) -> Lengths:
    return sampler.sample(n, stream(seed, "prompt_len"), stream(seed, "output_len"))


def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values))


def table(correlation: float = 0.0) -> QuantileLengths:
    """Uniform prompts on 1..100001, outputs 10 (half), then uniform to 1010."""
    return QuantileLengths(
        name="toy",
        probability=(0.0, 0.5, 1.0),
        prompt_tokens=(1, 50_001, 100_001),
        output_tokens=(10, 10, 1010),
        correlation=correlation,
    )


@pytest.mark.parametrize("dataset", sorted(DATASETS))
def test_first_lengths_of_a_longer_draw_are_the_shorter_draw(dataset: str) -> None:
    spec = WorkloadSpec(dataset=dataset, random_range_ratio=0.5)
    sampler = DATASETS[dataset](spec)
    long, short = draw(sampler, 3001), draw(sampler, 777)
    for whole, part in zip(long, short, strict=True):
        assert part.dtype == np.int64
        assert np.array_equal(whole[:777], part)


@pytest.mark.parametrize(
    ("centre", "ratio", "low", "high"),
    [(1000, 0.2, 800, 1200), (7, 0.5, 3, 11), (1, 0.9, 1, 2), (10, 0.05, 9, 11)],
)
def test_random_lengths_fill_the_vllm_interval_uniformly(
    centre: int, ratio: float, low: int, high: int
) -> None:
    """Chi-square of the cells below its mean plus 5 standard deviations."""
    n, cells = 100_000, high - low + 1
    for values in draw(RandomLengths(centre, centre, ratio), n):
        counts = np.bincount(values, minlength=high + 1)
        assert counts[:low].sum() == 0
        assert counts.size == high + 1
        chi2 = float(((counts[low:] - n / cells) ** 2 / (n / cells)).sum())
        assert chi2 < (cells - 1) + 5 * math.sqrt(2 * (cells - 1))


def test_random_prompts_and_outputs_are_independent() -> None:
    prompt, output = draw(RandomLengths(1000, 1000, 0.5), 50_000)
    assert abs(np.corrcoef(prompt, output)[0, 1]) < 3.9 / math.sqrt(50_000)


def test_range_ratio_zero_fixes_both_lengths() -> None:
    prompt, output = draw(RandomLengths(8192, 64, 0.0), 50)
    assert set(prompt.tolist()) == {8192}
    assert set(output.tolist()) == {64}


def test_table_margins_are_the_tables_piecewise_linear_laws() -> None:
    """Kolmogorov-Smirnov, sqrt(n) D < 1.95 in 99.9 % of samples."""
    n = 100_000
    prompt, output = draw(table(), n)
    u = np.sort(prompt) / 100_001
    assert math.sqrt(n) * np.abs(u - (np.arange(n) + 0.5) / n).max() < 1.95
    at_floor = (output == 10).mean()
    # 10.5 is where rounding leaves the floor: u = 0.5 + 0.5 * 0.5 / 1000.
    assert at_floor == pytest.approx(0.50025, abs=3.3 * 0.5 / math.sqrt(n))


@pytest.mark.parametrize("rho", [-0.6, 0.0, 0.8])
def test_rank_correlation_is_that_of_a_gaussian_copula(rho: float) -> None:
    """Spearman = 6/pi * asin(rho/2) (Kruskal 1958); its error is below 1/sqrt(n)."""
    n = 100_000
    sampler = QuantileLengths(
        name="toy",
        probability=(0.0, 1.0),
        prompt_tokens=(1, 1_000_000),
        output_tokens=(1, 1_000_000),
        correlation=rho,
    )
    prompt, output = draw(sampler, n)
    spearman = np.corrcoef(ranks(prompt), ranks(output))[0, 1]
    expected = 6 / math.pi * math.asin(rho / 2)
    assert spearman == pytest.approx(expected, abs=3.9 / math.sqrt(n))


@pytest.mark.parametrize("rho", [-1.0, 1.0])
def test_full_correlation_ties_the_ranks(rho: float) -> None:
    prompt, output = draw(table(rho), 1000)
    order = np.argsort(prompt)
    assert np.all(np.diff(output[order]) * rho >= 0)


def test_correlation_does_not_change_the_prompts() -> None:
    assert np.array_equal(draw(table(0.0), 500)[0], draw(table(0.9), 500)[0])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("probability", (0.0, 0.5, 0.9)),
        ("probability", (0.1, 0.5, 1.0)),
        ("probability", (0.0, 0.0, 1.0)),
        ("probability", (0.0, math.nan, 1.0)),
        ("probability", ()),
        ("prompt_tokens", (1, 2)),
        ("prompt_tokens", (0, 1, 2)),
        ("output_tokens", (1, 3, 2)),
        ("output_tokens", (1, 2, 10_000_001)),
        ("correlation", 1.01),
        ("correlation", math.nan),
    ],
)
def test_a_table_that_is_no_quantile_function_is_refused(
    key: str, value: object
) -> None:
    good: dict[str, object] = {
        "probability": (0.0, 0.5, 1.0),
        "prompt_tokens": (1, 2, 3),
        "output_tokens": (1, 2, 3),
        "correlation": 0.0,
    }
    QuantileLengths(name="ok", **good)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"bad: {key}: .*; allowed: "):
        QuantileLengths(name="bad", **(good | {key: value}))  # type: ignore[arg-type]
