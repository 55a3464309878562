"""The packed timings as read back: known rows, integrity, laziness."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import pytest

from calibration.tables import DATA_DIR, KernelTables, load_tables
from sim.errors import ConfigError

MB = 1_000_000
PROVENANCE = json.loads((DATA_DIR / "provenance.json").read_text())
PACKS = sorted(PROVENANCE["packs"])
QWEN3_30B = {"hidden_size": 2048, "inter_size": 768, "topk": 8, "num_experts": 128}


@pytest.fixture(scope="module")
def h100() -> KernelTables:
    return load_tables("h100_sxm")


def load(pack: str) -> KernelTables:
    gpu, _, framework = pack.partition(".")
    return load_tables(gpu, framework=framework or "vllm")


def latency_us(tables: KernelTables, table: str, **key: int | str) -> float:
    (latency_ns,) = tables.select(table, **key)["latency_ns"]
    return float(latency_ns) / 1e3


def test_small_all_reduce_takes_the_published_time(h100: KernelTables) -> None:
    """128 elements over 2 H100: 4.3 us in a CUDA graph, 20.6 us launched eagerly."""
    graph = latency_us(
        h100, "custom_allreduce", backend="graph", num_gpus=2, message_size=256
    )
    eager = latency_us(
        h100, "custom_allreduce", backend="eager", num_gpus=2, message_size=256
    )
    assert graph == pytest.approx(4.292, rel=5e-4)
    assert eager == pytest.approx(20.602, rel=5e-4)


def test_message_sizes_are_bytes(h100: KernelTables) -> None:
    """The source counts 16-bit elements: its size 2**24 is a message of 33.5 MB.

    Its int8 rows, not packed, give 0.1516 ms for 2**25 elements, the same 33.5 MB.
    """
    time_us = latency_us(
        h100, "nccl", op_name="all_reduce", num_gpus=2, message_size=2**25
    )
    assert time_us == pytest.approx(143.55, rel=5e-4)
    assert time_us == pytest.approx(151.6, rel=0.1)


@pytest.mark.parametrize("operation", ["all_reduce", "all_gather", "reduce_scatter"])
@pytest.mark.parametrize(
    ("gpu", "nvlink"),
    [
        *(("h100_sxm", 450e9), ("h200_sxm", 450e9), ("a100_sxm", 300e9)),
        *(("b200_sxm", 9e11), ("gb200", 9e11), ("rtx_pro_6000", 64e9)),
    ],
)
def test_large_collectives_stay_below_the_link_rate(
    gpu: str, nvlink: float, operation: str
) -> None:
    """Bytes each of 2 GPUs must send in a ring, over time: 40-100 % of NVLink.

    So a message is the whole buffer and its size is in bytes: in elements, or per GPU,
    H100 would be below 40 % or above 100 %.
    """
    rows = load_tables(gpu).select("nccl", op_name=operation, num_gpus=2)
    size, time_ns = rows["message_size"][-1], rows["latency_ns"][-1]
    sent = size * (2 if operation == "all_reduce" else 1) / 2
    assert size == 2**29
    assert 0.4 * nvlink < sent / (time_ns * 1e-9) < nvlink


@pytest.mark.parametrize(
    ("table", "distribution", "totals_ms"),
    [
        ("moe", "balanced", (202, 112, 70, 49, 42)),
        ("moe", "power_law_1.2", (207, 118, 80, 57, 47)),
        ("moe_untuned", "power_law_1.2", (240, 146, 100, 85, 78)),
        ("moe_untuned", "power_law_1.01", (237, 141, 99, 84, 77)),
        ("moe_untuned", "balanced", (249, 141, 92, 80, 75)),
    ],
)
def test_moe_of_a_chunked_prompt(
    h100: KernelTables, table: str, distribution: str, totals_ms: tuple[int, ...]
) -> None:
    """Qwen3-30B-A3B TP2, 48 layers, 8192 tokens in chunks of 512 ... 8192.

    The totals were worked out from the original tables, apart from this code.
    """
    key = {"moe_tp_size": 2, "moe_ep_size": 1, **QWEN3_30B}
    for chunk, total_ms in zip((512, 1024, 2048, 4096, 8192), totals_ms, strict=True):
        each_us = latency_us(
            h100,
            table,
            dtype="bfloat16",
            distribution=distribution,
            num_tokens=chunk,
            **key,
        )
        assert 48 * 8192 // chunk * each_us / 1e3 == pytest.approx(total_ms, abs=0.6)


def test_untuned_triton_is_slower_only_in_large_batches(h100: KernelTables) -> None:
    """Ratio of the two engines' MoE at TP2, rows of the published comparison."""

    def at(table: str, tokens: int) -> float:
        return latency_us(
            h100,
            table,
            dtype="bfloat16",
            distribution="power_law_1.2",
            moe_tp_size=2,
            moe_ep_size=1,
            num_tokens=tokens,
            **QWEN3_30B,
        )

    for tokens, ratio in ((128, 0.98), (512, 1.16), (8192, 1.67)):
        measured = at("moe_untuned", tokens) / at("moe", tokens)
        assert measured == pytest.approx(ratio, abs=0.03)


@pytest.mark.parametrize("pack", PACKS)
def test_rows_are_unique_sorted_and_positive(pack: str) -> None:
    """Every table is in ascending order of its keys, from left to right."""
    tables = load(pack)
    for table in tables.names:
        columns = tables.columns(table)
        *keys, last = columns
        assert last == "latency_ns"
        order = np.lexsort([columns[key] for key in reversed(keys)])
        assert (order == np.arange(len(order))).all()
        changed = [columns[key][1:] != columns[key][:-1] for key in keys]
        assert np.any(changed, axis=0).all()
        assert columns["latency_ns"].min() > 0
        assert len(order) == tables.provenance[table]["rows"]


def test_latencies_have_four_significant_digits(h100: KernelTables) -> None:
    for table in h100.names:
        latency_ns = h100.columns(table)["latency_ns"]
        unit = 10.0 ** np.maximum(np.floor(np.log10(latency_ns)) - 3, 0)
        assert (latency_ns % unit == 0).all()


def test_gemm_is_the_full_grid(h100: KernelTables) -> None:
    """74 row counts for every profiled (n, k), sorted, nothing thinned out."""
    rows = h100.select("gemm", dtype="bfloat16", n=4096, k=2048)
    assert list(rows) == ["m", "latency_ns"]
    assert len(rows["m"]) == 74
    assert (np.diff(rows["m"]) > 0).all()
    assert rows["m"][-1] == 32768


def test_select_of_an_unmeasured_value_is_empty(h100: KernelTables) -> None:
    rows = h100.select("gemm", dtype="int3", n=4096)
    assert rows["m"].shape == rows["latency_ns"].shape == (0,)


def test_unknown_names_say_what_there_is(h100: KernelTables) -> None:
    with pytest.raises(ConfigError, match=r'"h10_sxm" \(did you mean "h100_sxm"\?\)'):
        load_tables("h10_sxm")
    with pytest.raises(ConfigError, match=r'"moe_tuned".*allowed: .*moe_untuned'):
        h100.columns("moe_tuned")
    with pytest.raises(ConfigError, match=r'"num_token" .*mean "num_tokens"'):
        h100.select("moe", num_token=1)
    with pytest.raises(ConfigError, match="moe_untuned"):
        load_tables("h200_sxm").columns("moe_untuned")


def test_loading_everything(record_property: Callable[[str, object], None]) -> None:
    """All columns of the largest pack; the time is reported, not judged."""
    start = time.perf_counter()
    tables = load_tables("h100_sxm")
    rows = {
        name: len(next(iter(tables.columns(name).values()))) for name in tables.names
    }
    for name, count in rows.items():
        assert {len(column) for column in tables.columns(name).values()} == {count}
    assert sum(rows.values()) > 150_000
    record_property("load_ms", round(1e3 * (time.perf_counter() - start)))


def test_columns_are_read_only(h100: KernelTables) -> None:
    column = h100.columns("gemm")["latency_ns"]
    with pytest.raises(ValueError, match="read-only"):
        column[0] = 1
