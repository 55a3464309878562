"""Coverage of the tables: ranges of keys, points of a plane."""

from __future__ import annotations

import pytest

from calibration.coverage_map import key_ranges, profiled_points
from calibration.tables import KernelTables, load_tables


@pytest.fixture(scope="module")
def h100() -> KernelTables:
    return load_tables("h100_sxm")


def test_ranges_are_the_published_ones(h100: KernelTables) -> None:
    """GEMM: 74 m to 32768, 22 n, 22 k; MoE: 27 token counts, 1 to 16384."""
    ranges = key_ranges(h100).set_index(["table", "key"])
    for table, key, expected in (
        ("gemm", "m", (74, 1, 32768)),
        ("gemm", "n", (22, 32, 65536)),
        ("gemm", "k", (22, 32, 65536)),
        ("moe", "num_tokens", (27, 1, 16384)),
        ("moe", "distribution", (3, "balanced", "power_law_1.2")),
    ):
        assert tuple(ranges.loc[(table, key)][["distinct", "min", "max"]]) == expected
    assert "latency_ns" not in key_ranges(h100)["key"].to_numpy()


def test_points_count_every_row_once(h100: KernelTables) -> None:
    """Of every table that has a plane; on H100 all have."""
    points = profiled_points(h100)
    rows = points.groupby("table")["rows"].sum().to_dict()
    assert rows == {name: h100.provenance[name]["rows"] for name in h100.names}


def test_decode_attention_has_a_truncated_corner(h100: KernelTables) -> None:
    """One request reaches 131071 tokens of context, 2048 requests do not."""
    points = profiled_points(h100)
    decode = points[points["table"] == "decode_attention"]
    longest = decode.groupby("y")["x"].max()
    assert longest["1"] == 131071
    assert longest["2048"] < 8192
    assert list(dict.fromkeys(decode["y"]))[:3] == ["1", "2", "4"]
