"""Dense products on the shipped tables: exact where profiled, sane elsewhere."""

from __future__ import annotations

import pytest

from calibration.kernels.gemm import Gemms
from calibration.tables import KernelTables, load_tables
from tests.calibration.kernel_checks import (
    LAYERS,
    PROJECTIONS,
    geometric,
    never_falls,
    smoothed,
)


@pytest.fixture(scope="module")
def h100() -> KernelTables:
    return load_tables("h100_sxm")


@pytest.fixture(scope="module")
def gemms(h100: KernelTables) -> Gemms:
    return Gemms(h100, "bfloat16")


@pytest.mark.parametrize(("n", "k"), PROJECTIONS)
def test_gemm_hits_the_table(h100: KernelTables, gemms: Gemms, n: int, k: int) -> None:
    """At every profiled row count, smoothed over rows."""
    rows = h100.select("gemm", dtype="bfloat16", n=n, k=k)
    assert rows["m"].size > 50
    for m, ns in zip(rows["m"], smoothed(rows["latency_ns"]), strict=True):
        timed = gemms.at(int(m), n, k)
        assert timed.ns == pytest.approx(ns, abs=1)
        assert timed.extrapolated_ns == 0


def test_gemm_is_linear_between_profiled_rows(gemms: Gemms) -> None:
    """8192 to 16384 rows of the QKV projection: 115.2 and 227.5 us."""
    assert gemms.at(8192, 2560, 2048).ns == 115_200
    assert gemms.at(16384, 2560, 2048).ns == 227_500
    assert gemms.at(12288, 2560, 2048).ns == (115_200 + 227_500) // 2


def test_gemm_beyond_the_profiled_rows_is_flagged_and_continuous(gemms: Gemms) -> None:
    """Utilisation is held at 32768 rows."""
    edge, beyond = gemms.at(32768, 2560, 2048), gemms.at(32769, 2560, 2048)
    assert edge == (434_400, 0)
    assert beyond.ns == pytest.approx(edge.ns, rel=1e-4)
    assert beyond.extrapolated_ns == beyond.ns
    assert gemms.at(65536, 2560, 2048).ns == pytest.approx(2 * edge.ns, rel=1e-6)


def test_gemm_of_another_shape_runs_at_the_nearest_ones_efficiency(
    gemms: Gemms,
) -> None:
    """2100 x 2048 as 2048 x 2048, longer by 2100 / 2048; n beyond 65536 is flagged."""
    near, other = gemms.at(512, 2048, 2048), gemms.at(512, 2100, 2048)
    assert other.ns == pytest.approx(near.ns * 2100 / 2048, abs=1)
    assert other.extrapolated_ns == 0
    head = gemms.at(4, 75968, 2048)
    assert head.extrapolated_ns == head.ns


@pytest.mark.parametrize(("n", "k"), PROJECTIONS)
def test_gemm_never_falls_with_rows(gemms: Gemms, n: int, k: int) -> None:
    """More rows are never cheaper."""
    sizes = sorted({*geometric(1, 40_000), 2560, 2561})
    assert never_falls(lambda m: gemms.at(m, n, k), sizes)


@pytest.mark.parametrize(
    ("batch", "published_ms"),
    [(1, 0.90), (2, 0.91), (4, 0.89), (8, 0.90), (16, 0.92), (32, 0.91), (64, 0.93)],
)
def test_gemm_of_a_decode_iteration(
    gemms: Gemms, batch: int, published_ms: float
) -> None:
    """Projections and router of all layers, within 10 %."""
    ns = LAYERS * sum(gemms.at(batch, n, k).ns for n, k in PROJECTIONS)
    assert ns / 1e6 == pytest.approx(published_ms, rel=0.10)
