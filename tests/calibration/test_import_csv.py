"""Importing a user's own kernel timings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from calibration.import_csv import import_csv
from calibration.pack_set import write_set
from calibration.profiler.schema import KernelRow, Value, csv_bytes, kernel
from calibration.tables import KernelTables, load_tables
from sim.errors import ConfigError

HEADS = {"num_heads": 16, "num_key_value_heads": 2, "head_dim": 128, "window_size": 0}
EXPERTS = {
    **{"hidden_size": 2048, "inter_size": 768, "topk": 8, "num_experts": 128},
    **{"moe_tp_size": 2, "moe_ep_size": 1},
}


def gemm(m: int, latency_ns: int, energy_mj: float | None = None) -> KernelRow:
    keys = kernel("gemm", dtype="bfloat16", n=4096, k=2048, m=m)
    return KernelRow(keys, latency_ns, energy_mj, "cublas")


def prefill(prefix: int, latency_ns: int) -> KernelRow:
    keys: dict[str, Value] = {"kv_dtype": "bfloat16", **HEADS}
    keys |= {"batch_size": 1, "isl": 512}
    attention = kernel("prefill_attention", **keys, prefix=prefix)
    return KernelRow(attention, latency_ns, None, "fa3")


def moe(law: str, touched: int, latency_ns: int) -> KernelRow:
    keys: dict[str, Value] = {"dtype": "bfloat16", **EXPERTS}
    keys |= {"distribution": law, "num_tokens": 64}
    experts = kernel("moe", **keys, touched_experts=touched)
    return KernelRow(experts, latency_ns, None, "triton")


ROWS = [
    *(gemm(1, 10_000), gemm(2, 10_100, 2.5), gemm(4, 9_000)),
    *(prefill(0, 20_000), prefill(4096, 30_000)),
    *(moe("touched", 64, 50_000), moe("touched", 100, 70_000)),
    moe("power_law_1.2", 0, 80_000),
]


def write(folder: Path, rows: list[KernelRow]) -> Path:
    path = folder / "mine.csv"
    path.write_bytes(csv_bytes(rows))
    return path


def packed(folder: Path, rows: list[KernelRow]) -> KernelTables:
    write_set(folder, [import_csv(write(folder, rows), "h100_sxm", "vllm")])
    return load_tables("h100_sxm", folder)


def test_rows_come_back_in_the_tables_the_simulator_reads(tmp_path: Path) -> None:
    """Prefix and touched experts in tables of their own, so that others keep their
    meaning."""
    tables = packed(tmp_path, ROWS)
    assert tables.names == (
        *("gemm", "moe", "moe_touched", "prefill_attention"),
        "prefill_attention_prefix",
    )
    found = tables.select("gemm", dtype="bfloat16", n=4096, k=2048)
    assert found["m"].tolist() == [1, 2, 4]
    assert found["latency_ns"].tolist() == [10_000, 10_100, 9_000]
    assert found["energy_uj"].tolist() == [0, 2500, 0]
    full = tables.columns("prefill_attention")
    assert (list(full)[-2:], full["latency_ns"].tolist()) == (
        ["isl", "latency_ns"],
        [20_000],
    )
    prefix = tables.columns("prefill_attention_prefix")
    assert (prefix["prefix"].tolist(), prefix["latency_ns"].tolist()) == (
        [4096],
        [30_000],
    )
    touched = tables.columns("moe_touched")
    assert touched["touched_experts"].tolist() == [64, 100]
    assert "distribution" not in touched
    law = tables.columns("moe")
    assert (law["distribution"].tolist(), "touched_experts" in law) == (
        ["power_law_1.2"],
        False,
    )


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    one = import_csv(write(tmp_path, ROWS), "h100_sxm", "vllm").content
    path = write(tmp_path, ROWS)
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(lines), ""]))
    assert import_csv(path, "h100_sxm", "vllm").content == one


def test_provenance_says_by_what_the_rows_were_timed(tmp_path: Path) -> None:
    rows = [replace(gemm(1, 10_000), timer="cupti", event_ns=12_000), gemm(2, 10_100)]
    entry = import_csv(write(tmp_path, rows), "h100_sxm", "vllm").tables["gemm"]
    assert entry["timer"] == ["cupti", "not said"]


def test_provenance_names_the_file_not_its_folder(tmp_path: Path) -> None:
    entry = import_csv(write(tmp_path, ROWS), "h100_sxm", "vllm").tables["gemm"]
    assert (entry["file"], entry["rows"], entry["kernel_source"]) == (
        *("mine.csv", 3),
        ["cublas"],
    )
    assert str(tmp_path) not in str(entry)


def test_noise_is_accepted_and_the_impossible_refused(tmp_path: Path) -> None:
    """Twice the rows in 51 % of the time may be; in 49 % it is a mistake."""
    import_csv(write(tmp_path, [gemm(1, 10_000), gemm(2, 5_100)]), "h100_sxm", "vllm")
    path = write(tmp_path, [gemm(1, 10_000), gemm(2, 4_900)])
    with pytest.raises(ConfigError) as refused:
        import_csv(path, "h100_sxm", "vllm")
    message = str(refused.value)
    assert "gemm/bfloat16/4096/2048/2: latency_ns = 4900" in message
    assert message.endswith("at least half of the 10000 at m = 1")
    assert "\n" not in message


def test_rows_of_different_kernels_are_not_compared(tmp_path: Path) -> None:
    """Fewer touched experts or a shorter prefix is another kernel."""
    fast = [moe("touched", 64, 1_000), moe("touched", 100, 90_000)]
    other = replace(gemm(8, 100), kernel=kernel("gemm", dtype="fp8", n=1, k=1, m=8))
    tables = packed(tmp_path, [*fast, other, gemm(1, 10_000)])
    assert tables.columns("gemm")["latency_ns"].size == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("10100", "-10100", "latency_ns"),
        ("10100", "nan", "latency_ns"),
        ("2.5", "-1", "energy_mj"),
        ("gemm", "gem", "table"),
        ("latency_ns", "latency_us", "unknown unit; allowed: latency_ns"),
        ("prefix", "prefx", 'did you mean "prefix"'),
    ],
)
def test_a_bad_file_is_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = write(tmp_path, ROWS)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as refused:
        import_csv(path, "h100_sxm", "vllm")
    assert "\n" not in str(refused.value)
    assert "mine.csv" in str(refused.value)
