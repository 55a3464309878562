"""The kernel-timing CSV: what is written reads back, what is wrong is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.profiler.schema import (
    COLUMNS,
    TABLES,
    KernelRow,
    csv_bytes,
    kernel,
    read_rows,
    validate_row,
)
from sim.errors import ConfigError

GEMM = "table,dtype,n,k,m,latency_ns,kernel_source"
TIMED = f"{GEMM},timer,event_ns"
MOE = (
    "table,dtype,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,"
    "distribution,num_tokens,touched_experts,latency_ns,energy_mj,kernel_source"
)
HEADS = {"num_heads": 16, "num_key_value_heads": 2, "head_dim": 128, "window_size": 0}
EXPERTS = {
    "dtype": "bfloat16",
    "hidden_size": 2048,
    "inter_size": 768,
    "topk": 8,
    "num_experts": 128,
    "moe_tp_size": 2,
    "moe_ep_size": 1,
    "num_tokens": 64,
}
ROWS = (
    KernelRow(
        kernel("gemm", dtype="bfloat16", n=4096, k=2048, m=512), 9_000, 3.5, "linear"
    ),
    KernelRow(
        kernel(
            "prefill_attention",
            kv_dtype="bfloat16",
            batch_size=1,
            isl=512,
            prefix=0,
            **HEADS,
        ),
        20_000,
        None,
        'a "quoted", source',
    ),
    KernelRow(
        kernel("decode_attention", kv_dtype="fp8", batch_size=4, step=9000, **HEADS),
        31_000,
        0.1 + 0.2,
        "flash",
    ),
    KernelRow(
        kernel("moe", distribution="touched", touched_experts=100, **EXPERTS),
        150_000,
        None,
        "fused",
    ),
    KernelRow(
        kernel("moe", distribution="balanced", touched_experts=0, **EXPERTS),
        180_000,
        None,
        "fused",
    ),
    KernelRow(
        kernel("custom_allreduce", backend="graph", num_gpus=2, message_size=2048),
        4_600,
        None,
        "vllm",
    ),
    KernelRow(
        kernel("nccl", op_name="all_gather", num_gpus=2, message_size=1 << 29),
        3_000_000,
        None,
        "nccl",
        "cupti",
        3_002_000,
    ),
)


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "kernels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_of_every_table_read_back(tmp_path: Path) -> None:
    """Values, energies to the last bit and quoted text; in sorted order."""
    assert {row.kernel.table for row in ROWS} == set(TABLES)
    back = read_rows(written(tmp_path, csv_bytes(ROWS)))
    assert len(back) == len(ROWS)
    assert set(back) == set(ROWS)
    assert [row.kernel.table for row in back] == sorted(
        (row.kernel.table for row in ROWS), key=list(TABLES).index
    )


def test_the_order_of_rows_does_not_change_the_file() -> None:
    """So a resumed session ends in the same bytes."""
    assert csv_bytes(reversed(ROWS)) == csv_bytes(ROWS)
    assert csv_bytes(ROWS).splitlines()[0] == ",".join(COLUMNS).encode()


def test_spreadsheet_files_are_read(tmp_path: Path) -> None:
    """BOM, CRLF, blank lines, columns in any order, no energy column."""
    text = (
        "\ufeffkernel_source,m,k,n,dtype,table,latency_ns\r\n\r\n"
        "cublas,512,2048,4096,bfloat16,gemm,9000\r\n"
    )
    (row,) = read_rows(written(tmp_path, text))
    assert row.kernel == kernel("gemm", dtype="bfloat16", n=4096, k=2048, m=512)
    assert (row.latency_ns, row.energy_mj, row.kernel_source) == (9000, None, "cublas")


GOOD_MOE = "moe,bfloat16,2048,768,8,128,2,1,touched,64,100,9000,,x"


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (GEMM, "fft,bfloat16,1,1,1,9,x", 'table = "fft"; allowed: one of gemm'),
        (GEMM, "gemm,float16,1,1,1,9,x", 'dtype = "float16"; allowed: one of bfl'),
        (GEMM, "gemm,bfloat16,-4,1,1,9,x", 'n = "-4"; allowed: an integer >= 1'),
        (GEMM, "gemm,bfloat16,1.5,1,1,9,x", 'n = "1.5"; allowed: an integer'),
        (GEMM, "gemm,bfloat16,0,1,1,9,x", 'n = "0"; allowed: an integer >= 1'),
        (GEMM, "gemm,bfloat16,,1,1,9,x", 'n = ""; allowed: an integer'),
        (GEMM, "gemm,bfloat16,1,1,1,nan,x", 'latency_ns = "nan"; allowed: an int'),
        (GEMM, "gemm,bfloat16,1,1,1,-9,x", 'latency_ns = "-9"; allowed'),
        (GEMM, "gemm,bfloat16,1,1,1,0,x", 'latency_ns = "0"; allowed'),
        (GEMM, "gemm,bfloat16,1,1,1,99999999999999999999,x", "latency_ns = "),
        (GEMM, "gemm,bfloat16,1,1,1,9,", 'kernel_source = ""; allowed: 1 to'),
        (GEMM, "gemm,bfloat16,1,1,9,x", "6 cells; allowed: 7"),
        (GEMM, 'gemm,bfloat16,1,1,1,9,"x', "not CSV"),
        (GEMM, "moe,bfloat16,1,1,1,9,x", 'n = "1"; allowed: nothing in rows of moe'),
        (MOE, GOOD_MOE.replace(",100,", ",129,"), 'touched_experts = "129"'),
        (MOE, GOOD_MOE.replace(",100,", ",7,"), 'touched_experts = "7"; allowed: topk'),
        (MOE, GOOD_MOE.replace(",100,", ",,"), 'touched_experts = ""'),
        (MOE, GOOD_MOE.replace("touched", "balanced"), "nothing unless distribution"),
        (MOE, GOOD_MOE.replace(",8,128,", ",8,4,"), 'topk = "8"; allowed: an integer'),
        (MOE, GOOD_MOE.replace("9000,,", "9000,inf,"), 'energy_mj = "inf"'),
        (MOE, GOOD_MOE.replace("9000,,", "9000,-1,"), 'energy_mj = "-1"'),
        (MOE, GOOD_MOE.replace("9000,,", "9000,1e40,"), 'energy_mj = "1e40"'),
        (MOE, GOOD_MOE.replace("9000,,", "9000,much,"), 'energy_mj = "much"'),
        (TIMED, "gemm,bfloat16,1,1,1,9,x,clock,", 'timer = "clock"; allowed: one of c'),
        (TIMED, "gemm,bfloat16,1,1,1,9,x,cupti,0", 'event_ns = "0"; allowed: an int'),
    ],
)
def test_a_wrong_cell_is_one_line(
    tmp_path: Path, header: str, row: str, message: str
) -> None:
    """File, line, column, value and what is allowed."""
    path = written(tmp_path, f"{header}\n{row}\n")
    with pytest.raises(ConfigError) as caught:
        read_rows(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: line 2: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (GEMM.replace("latency_ns", "latency_us"), "unknown unit; allowed: latency_ns"),
        (f"{GEMM},energy_j", "unknown unit; allowed: energy_mj"),
        (f"{GEMM},event_ms", "unknown unit; allowed: event_ns"),
        (f"{GEMM},prefx", 'unknown column "prefx" (did you mean "prefix"?)'),
        (f"{GEMM},m", 'column "m" twice'),
        (GEMM.replace(",latency_ns", ""), 'no column "latency_ns"'),
        (GEMM.replace("table,", ""), 'no column "table"'),
        (GEMM.replace(",kernel_source", ""), 'no column "kernel_source"'),
    ],
)
def test_a_wrong_header_is_one_line(tmp_path: Path, header: str, message: str) -> None:
    """Also a unit that is not ours."""
    path = written(tmp_path, f"{header}\n")
    with pytest.raises(ConfigError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}: line 1: ")
    assert message in str(caught.value)


def test_a_kernel_measured_twice_is_refused(tmp_path: Path) -> None:
    """Whatever its times are; the message names the first line."""
    row = "gemm,bfloat16,1,1,1,9,x"
    path = written(tmp_path, f"{GEMM}\n{row}\n\n{row}\n")
    with pytest.raises(ConfigError, match=r"line 4: .* once; line 2 has it already"):
        read_rows(path)
    with pytest.raises(ValueError, match="same kernel"):
        csv_bytes([ROWS[0], ROWS[0]])


@pytest.mark.parametrize("content", [b"", GEMM.encode() + b"\n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    """Nothing to calibrate with."""
    with pytest.raises(ConfigError, match="no rows"):
        read_rows(written(tmp_path, content))


def test_what_is_not_text_or_not_there_is_one_line(tmp_path: Path) -> None:
    """Binary files, missing files and folders."""
    with pytest.raises(ConfigError, match="not UTF-8 text at byte 0"):
        read_rows(written(tmp_path, b"\xff\xfe"))
    for path in (tmp_path / "missing.csv", tmp_path):
        with pytest.raises(ConfigError, match="cannot read"):
            read_rows(path)


def test_one_row_may_be_checked_alone() -> None:
    """As the importer does with rows from elsewhere."""
    cells = {"table": "gemm", "dtype": "fp8", "n": "1", "k": "2", "m": "3"}
    cells |= {"latency_ns": "9", "kernel_source": "x"}
    row = validate_row(cells, Path("mine.csv"), 7)
    assert row.kernel.name == "gemm/fp8/1/2/3"
    with pytest.raises(ConfigError, match=r'mine.csv: line 7: k = ""'):
        validate_row({**cells, "k": ""}, Path("mine.csv"), 7)
