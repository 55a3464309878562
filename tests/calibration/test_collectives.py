"""Collectives on the shipped tables, what-if machines, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from calibration.engine_profiles import engine_profile
from calibration.hardware import gpu
from calibration.kernels.attention import (
    AttentionShape,
    DecodeAttention,
    PrefillAttention,
)
from calibration.kernels.collectives import Collectives
from calibration.kernels.experts import Experts, Inefficiency
from calibration.kernels.gemm import Gemms
from calibration.kernels.what_if import MachineScale
from calibration.tables import KernelTables, load_tables
from sim.errors import ConfigError
from sim.kernel_times import Timed
from tests.calibration.kernel_checks import (
    EXPERTS,
    MIB,
    geometric,
    never_falls,
    smoothed,
)


@pytest.fixture(scope="module")
def h100() -> KernelTables:
    return load_tables("h100_sxm")


@pytest.mark.parametrize("num_gpus", [2, 4, 8])
def test_all_reduce_hits_the_tables(h100: KernelTables, num_gpus: int) -> None:
    """The custom kernel up to 8 MiB, by launch; NCCL beyond; all-gather is NCCL's."""
    links = Collectives(h100, num_gpus, 8 * MIB)
    for backend in ("graph", "eager"):
        rows = h100.select("custom_allreduce", backend=backend, num_gpus=num_gpus)
        for size, ns in zip(
            rows["message_size"], smoothed(rows["latency_ns"]), strict=True
        ):
            if size <= 8 * MIB:
                timed = links.all_reduce(int(size), graph=backend == "graph")
                assert timed.ns == pytest.approx(ns, abs=1)
    for op, time_at in (
        ("all_reduce", lambda b: links.all_reduce(b, graph=False)),
        ("all_gather", links.all_gather),
    ):
        rows = h100.select("nccl", op_name=op, num_gpus=num_gpus)
        for size, ns in zip(
            rows["message_size"], smoothed(rows["latency_ns"]), strict=True
        ):
            if size > 8 * MIB:
                assert time_at(int(size)).ns == pytest.approx(ns, abs=1)


@pytest.mark.parametrize("num_gpus", [2, 4, 8])
def test_all_reduce_of_tensorrt_llm_is_its_own_at_every_size(num_gpus: int) -> None:
    """Graph timings for both launches; its choice of kernel is in the table."""
    tables = load_tables("h100_sxm", framework="trtllm")
    limit = engine_profile("trtllm-1.3").custom_all_reduce_bytes
    links = Collectives(tables, num_gpus, limit)
    rows = tables.select("custom_allreduce", num_gpus=num_gpus)
    assert rows["message_size"].max() == limit
    for size, ns in zip(
        rows["message_size"], smoothed(rows["latency_ns"]), strict=True
    ):
        for graph in (True, False):
            timed = links.all_reduce(int(size), graph=graph)
            assert timed.ns == pytest.approx(ns, abs=1)
            assert not timed.extrapolated_ns


def test_a_table_of_graphs_alone_is_not_enough_for_other_engines(
    h100: KernelTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = KernelTables.select

    def no_eager(self: KernelTables, table: str, **equals: int | str) -> Any:
        rows = everything(self, table, **equals)
        if equals.get("backend") == "eager":
            return {name: column[:0] for name, column in rows.items()}
        return rows

    monkeypatch.setattr(KernelTables, "select", no_eager)
    with pytest.raises(ConfigError, match="no custom_allreduce kernel"):
        Collectives(h100, 2, 8 * MIB)


@pytest.mark.parametrize("graph", [True, False])
def test_all_reduce_never_falls_within_a_kernel(
    h100: KernelTables, graph: bool
) -> None:
    """Up to the custom kernel's limit, and beyond it; graphs are never slower."""
    links = Collectives(h100, 2, 8 * MIB)
    for sizes in (geometric(1, 8 * MIB), geometric(8 * MIB + 1, 4000 * MIB)):
        assert never_falls(lambda b: links.all_reduce(b, graph=graph), sizes)
    for size in geometric(1, 8 * MIB):
        replayed = links.all_reduce(size, graph=True).ns
        assert replayed <= links.all_reduce(size, graph=False).ns


def test_all_reduce_beyond_the_table_is_flagged_and_continuous(
    h100: KernelTables,
) -> None:
    """The largest NCCL message profiled; bytes per second are held."""
    links = Collectives(h100, 2, 8 * MIB)
    sizes = h100.select("nccl", op_name="all_reduce", num_gpus=2)["message_size"]
    last = int(sizes.max())
    edge, beyond = (links.all_reduce(last + more, graph=False) for more in (0, 1024))
    assert edge.extrapolated_ns == 0
    assert beyond.extrapolated_ns == beyond.ns
    assert beyond.ns == pytest.approx(edge.ns, rel=1e-3)


def test_one_gpu_reduces_nothing(h100: KernelTables) -> None:
    """No message leaves it."""
    alone = Collectives(h100, 1, 8 * MIB)
    assert alone.all_reduce(10**9, graph=True) == alone.all_gather(10**9) == (0, 0)


def test_faster_links_shorten_what_is_above_the_latency_floor(
    h100: KernelTables,
) -> None:
    """Twice the bandwidth halves the time of a large message, not of a small one."""
    links, fast = Collectives(h100, 2, 8 * MIB), Collectives(h100, 2, 8 * MIB, 2.0)
    small, large = 256, 256 * MIB
    assert fast.all_reduce(small, graph=True) == links.all_reduce(small, graph=True)
    ratio = (
        fast.all_reduce(large, graph=True).ns / links.all_reduce(large, graph=True).ns
    )
    assert ratio == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("hbm", "compute", "hbm_bytes", "flops", "expected"),
    [
        (1.0, 1.0, 100, 1, 1000),  # as profiled
        (2.0, 1.0, 100, 1, 500),  # memory-bound
        (1.0, 2.0, 100, 1, 1000),
        (2.0, 1.0, 1, 100, 1000),  # compute-bound
        (1.0, 2.0, 1, 100, 500),
        (8.0, 1.0, 100, 50, 500),  # becomes compute-bound at half the time
        (0.5, 1.0, 100, 100, 2000),
    ],
)
def test_scaled_machine_follows_the_roofline(
    hbm: float, compute: float, hbm_bytes: float, flops: float, expected: int
) -> None:
    """1 byte and 1 FLOP take as long; efficiency is kept, and so is the flag."""
    scale = MachineScale(1e9, 1e9, hbm=hbm, compute=compute)
    timed = scale.apply(Timed(1000, 1000), hbm_bytes=hbm_bytes, flops=flops)
    assert timed == (expected, expected)


def test_unprofiled_kernels_are_refused() -> None:
    """One line that names the GPU and what is missing."""
    a100 = load_tables("a100_sxm")
    gpt_oss = AttentionShape(
        num_heads=64, num_kv_heads=8, head_dim=64, window=128, kv_dtype="bfloat16"
    )
    with pytest.raises(ConfigError, match="a100_sxm: no decode_attention kernel"):
        DecodeAttention(a100, gpt_oss)
    with pytest.raises(ConfigError, match="a100_sxm: no prefill_attention kernel"):
        PrefillAttention(a100, gpu("a100_sxm"), gpt_oss)
    with pytest.raises(ConfigError, match=r"a100_sxm: model\.dtype = fp8"):
        Gemms(a100, "fp8")
    with pytest.raises(ConfigError, match="a100_sxm: no MoE kernel with mxfp4"):
        Experts(a100, "moe", "mxfp4", EXPERTS, Inefficiency())
    with pytest.raises(ConfigError, match="tensor_parallel_size = 3"):
        Collectives(a100, 3, 8 * MIB)
