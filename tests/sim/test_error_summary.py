"""Error averages by hand, ranks against scipy, kinds kept apart."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from sim.error_summary import error_summary, rank_correlation


def _cases(*rows: tuple[str, str, str, str, str, float, float]) -> pd.DataFrame:
    names = ["case", "kind", "group", "model", "gpu", "measured", "predicted"]
    frame = pd.DataFrame(rows, columns=names)
    error = frame["predicted"] / frame["measured"] - 1
    return frame.assign(metric="mean_tpot_ms", error=error)


def test_averages_by_hand() -> None:
    """Errors of +10, -20 and +40 %: MAPE 70 / 3, bias +10; the worst is named."""
    frame = error_summary(
        _cases(
            ("a", "validation", "TPOT/ITL", "m1", "g1", 10.0, 11.0),
            ("b", "validation", "TPOT/ITL", "m1", "g2", 20.0, 16.0),
            ("c", "validation", "TPOT/ITL", "m2", "g2", 10.0, 14.0),
        )
    )
    total = frame[frame["by"] == "metric"].iloc[0]
    assert (total["n"], total["missing"]) == (3, 0)
    assert total["mape"] == pytest.approx(0.7 / 3)
    assert total["bias"] == pytest.approx(0.1)
    assert (total["worst_case"], total["worst_metric"]) == ("c", "mean_tpot_ms")
    assert total["worst_error"] == pytest.approx(0.4)
    by_model = frame[frame["by"] == "model"].set_index("of")
    assert by_model["mape"].to_dict() == pytest.approx({"m1": 0.15, "m2": 0.4})
    assert by_model["spearman"].isna().all()


def test_calibration_and_validation_are_never_averaged_together() -> None:
    frame = error_summary(
        _cases(
            ("a", "validation", "power", "m", "g", 10.0, 15.0),
            ("b", "calibration", "power", "m", "g", 10.0, 10.0),
            ("c", "validation", "energy", "m", "g", 10.0, 12.0),
        )
    )
    assert set(frame["n"]) == {1}
    errors = frame[frame["by"] == "metric"].set_index(["kind", "group"])["mape"]
    assert errors.to_dict() == pytest.approx(
        {
            ("validation", "power"): 0.5,
            ("validation", "energy"): 0.2,
            ("calibration", "power"): 0.0,
        }
    )
    assert frame["kind"].to_list() == sorted(frame["kind"], reverse=True)


def test_a_prediction_that_does_not_exist_is_counted_not_averaged() -> None:
    frame = error_summary(
        _cases(
            ("a", "validation", "TTFT", "m", "g", 10.0, 11.0),
            ("b", "validation", "TTFT", "m", "g", 10.0, math.nan),
        )
    )
    total = frame.iloc[0]
    assert (total["n"], total["missing"]) == (1, 1)
    assert total["mape"] == pytest.approx(0.1)


def test_rank_correlation_by_hand() -> None:
    """1 - 6 sum d^2 / (n (n^2 - 1)) with d = (0, 1, -1, 0): 0.8."""
    a, b = pd.Series([1.0, 2.0, 3.0, 4.0]), pd.Series([10.0, 30.0, 20.0, 40.0])
    assert rank_correlation(a, b) == pytest.approx(0.8)
    assert rank_correlation(a, -a) == pytest.approx(-1.0)


def test_rank_correlation_is_unknown_for_few_or_equal_values() -> None:
    two, same = pd.Series([1.0, 2.0]), pd.Series([5.0, 5.0, 5.0])
    assert math.isnan(rank_correlation(two, two))
    assert math.isnan(rank_correlation(same, pd.Series([1.0, 2.0, 3.0])))


def test_rank_correlation_is_scipys_with_ties() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(7)
    for _ in range(20):
        a = pd.Series(rng.integers(0, 6, 15).astype(float))
        b = a + pd.Series(rng.integers(0, 6, 15).astype(float))
        assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
