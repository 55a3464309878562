"""The script that fits the shipped tables."""

import math
import tomllib
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from workloads.build_tables import (
    PROBABILITY,
    SARATHI_PROMPT_RANGE,
    TruncatedLognormal,
    bisect,
    fit_median_p90,
    main,
    normal_scores,
    rescale,
)


def test_moments_agree_with_integrating_the_quantiles() -> None:
    """E[X^k] is the integral of quantile(u)^k over u (midpoint rule, 20,000 points)."""
    law = TruncatedLognormal(9.0, 0.7, 300, 15_900)
    n = 20_000
    x = np.array([law.quantile((k + 0.5) / n) for k in range(n)])
    for order in (1, 2):
        assert law.moment(order) == pytest.approx((x**order).mean(), rel=1e-5)


def test_a_wide_truncation_is_the_plain_lognormal() -> None:
    law = TruncatedLognormal(3.0, 0.5, 1e-9, 1e12)
    assert law.moment(1) == pytest.approx(math.exp(3 + 0.125))
    assert law.quantile(0.5) == pytest.approx(math.exp(3))
    assert (law.quantile(0.0), law.quantile(1.0)) == (1e-9, 1e12)


def test_the_fit_reaches_its_targets_and_predicts_the_published_deviation() -> None:
    """Sarathi-Serve Table 2: median 7059, P90 12985 fitted; std 3638 predicted."""
    law = fit_median_p90(7059, 12985, SARATHI_PROMPT_RANGE)
    assert law.quantile(0.5) == pytest.approx(7059)
    assert law.quantile(0.9) == pytest.approx(12985)
    std = math.sqrt(law.moment(2) - law.moment(1) ** 2)
    assert std == pytest.approx(3638, rel=0.01)


def test_rescaling_keeps_the_log_deviation_and_the_truncation() -> None:
    law = TruncatedLognormal(9.0, 0.7, 300, 15_900)
    moved = rescale(law, 9000)
    assert moved.moment(1) == pytest.approx(9000)
    assert moved[1:] == law[1:]


def test_bisection_finds_a_root() -> None:
    assert bisect(lambda x: x * x, 2.0, 0.0, 2.0) == pytest.approx(math.sqrt(2))


def test_tied_values_share_the_normal_score_of_their_middle_rank() -> None:
    scores = normal_scores(np.array([5, 9, 5, 1]))
    expected = [NormalDist().inv_cdf(u) for u in (0.5, 0.875, 0.5, 0.125)]
    assert scores.tolist() == pytest.approx(expected)


def test_the_script_writes_every_table(tmp_path: Path) -> None:
    """Prompts 1..1001 and outputs 1..1001 have quantile 1 + 1000 p, correlation 1."""
    csv = tmp_path / "lengths.csv"
    rows = "".join(f"{k},{k}\n" for k in range(1, 1002))
    csv.write_text("num_prefill_tokens,num_decode_tokens\n" + rows)
    azure = tmp_path / "azure.csv"
    rows = "".join(f"2023-11-16 18:15:46.6805900,{k},{k}\n" for k in range(1, 1002))
    azure.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    main([str(csv), str(azure), "--out", str(tmp_path)])
    assert sorted(p.name for p in tmp_path.glob("*.toml")) == [
        "arxiv.toml",
        "azure-conv.toml",
        "sharegpt.toml",
    ]
    expected = [1 + 1000 * p for p in PROBABILITY]
    for name in ("sharegpt", "azure-conv"):
        table = tomllib.loads((tmp_path / f"{name}.toml").read_text())
        assert table["correlation"] == 1
        assert table["probability"] == pytest.approx(PROBABILITY)
        for key in ("prompt_tokens", "output_tokens"):
            assert table[key] == pytest.approx(expected, abs=0.51)
