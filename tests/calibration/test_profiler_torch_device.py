"""The real device's bookkeeping on a stub of torch; what is missing is one line."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from calibration.profiler import torch_device
from calibration.profiler.device import Clocks, DeviceLostError, KernelFailedError
from calibration.profiler.kernel_trace import run_spans
from calibration.profiler.nvml import Nvml
from calibration.profiler.ranks import Ranks
from calibration.profiler.schema import kernel
from calibration.profiler.timing import measure
from calibration.profiler.torch_device import TorchDevice, open_device
from sim.errors import ConfigError
from tests.calibration.fake_gpu import QUICK
from tests.calibration.stub_torch import GRAPH_MS, KERNEL_MS, L2_BYTES, StubTorch

GEMM = kernel("gemm", dtype="bfloat16", n=64, k=32, m=16)


def device(torch: StubTorch, nvml: Nvml | None = None) -> TorchDevice:
    return TorchDevice(torch, Ranks(torch, 0, 1, None), nvml, seed=3)


def only(**modules: Any) -> Any:
    """A look-up of optional modules that knows these only."""
    return modules.get


def test_no_module_imports_torch() -> None:
    """Not even where it is installed: the simulator starts as fast as without."""
    code = (
        "import sys, sim.cli_profile, calibration.profiler.schema;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pynvml', 'vllm')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the extra to install."""
    monkeypatch.setattr(torch_device, "optional", only())
    with pytest.raises(ConfigError) as caught:
        open_device(0)
    assert str(caught.value) == (
        'calibrate profile: torch is not installed; pip install "servescope[profile]"'
    )


def test_without_a_gpu_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that torch is there, CUDA is not."""
    stub = StubTorch(available=False)
    monkeypatch.setattr(torch_device, "optional", only(torch=stub))
    with pytest.raises(
        ConfigError, match=r"torch 2.stub finds no CUDA device; needed:"
    ):
        open_device(0)


def test_with_a_gpu_the_device_describes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NVML, energy is absent and the provenance says so."""
    monkeypatch.setattr(torch_device, "optional", only(torch=StubTorch()))
    opened = open_device(0)
    described = opened.describe()
    assert described["gpu"] == "Stub GPU"
    assert (described["energy_counter"], described["vllm"]) == ("none", "none")
    assert (opened.rank, opened.num_ranks, opened.memory_bytes) == (0, 1, 80)
    assert opened.clocks() == Clocks(None)


def test_the_flush_writes_twice_the_l2() -> None:
    """One buffer, allocated once."""
    stub = StubTorch()
    opened = device(stub)
    opened.flush_l2()
    opened.flush_l2()
    assert stub.buffers == [2 * L2_BYTES]
    assert stub.calls == ["flush", "flush"]


def test_a_kernel_is_warmed_up_aside_then_captured_once() -> None:
    """As PyTorch asks for: side stream, three runs, then the capture."""
    stub = StubTorch()
    replay = device(stub).capture(GEMM)
    runs = ["linear"] * 3
    assert stub.calls == ["side", *runs, "/side", "capture", "linear", "/capture"]
    assert (replay.source, replay.host_paced) == ("torch.nn.functional.linear", False)
    assert stub.seeds == [3]


def test_the_harness_times_replays_of_the_graph() -> None:
    """A quarter of a millisecond each; eager runs never happen again."""
    stub = StubTorch()
    opened = device(stub)
    replay = opened.capture(GEMM)
    before = stub.calls.count("linear")
    timing = measure(opened, replay, QUICK)
    assert timing.latency_ns == round(KERNEL_MS * 1e6)
    assert stub.calls.count("linear") == before
    assert stub.calls.count("flush") == timing.repeats


def test_cupti_times_the_kernels_of_a_graph_alone() -> None:
    """From the first to the last of its two kernels; events add 10 us of launching."""
    stub = StubTorch(cupti=True)
    opened = device(stub)
    timing = measure(opened, opened.capture(GEMM), QUICK)
    assert timing.timer == "cupti"
    assert timing.latency_ns == round(KERNEL_MS * 1e6)
    assert timing.event_ns == round(GRAPH_MS * 1e6)
    assert opened.describe()["kernel_timer"] == "CUPTI"


def test_a_driver_that_lets_nobody_trace_leaves_the_events() -> None:
    """Profiling counters may be for administrators: the record is empty then."""
    stub = StubTorch(cupti=True, fail="profile")
    opened = device(stub)
    timing = measure(opened, opened.capture(GEMM), QUICK)
    assert (timing.timer, timing.flags) == ("cuda-event", ())
    profiles = stub.calls.count("profile")
    measure(opened, opened.capture(GEMM), QUICK)
    assert stub.calls.count("profile") == profiles  # asked once


def test_a_rank_that_cannot_trace_keeps_all_from_tracing() -> None:
    """Else the others would wait for it in the traced collective."""
    stub = StubTorch(cupti=True)
    replay = device(stub).capture(GEMM)
    group = Group([[0], [1]])  # no failure; it has no trace
    ranks = Ranks(group, 0, 2, "hosts")
    before = stub.calls.count("replay")
    assert TorchDevice(stub, ranks, None, seed=3).kernel_ns(replay, 5) is None
    assert stub.calls.count("replay") == before
    assert group.others == []


@pytest.mark.parametrize(
    ("activities", "runs", "spans"),
    [
        # two runs of two kernels with a gap of 5, each after one flush
        ([(0, 9), (10, 20), (25, 30), (40, 49), (60, 65), (70, 90)], 2, [20, 30]),
        # kernels that overlap: to the end of the one that ends last
        ([(0, 9), (10, 90), (20, 30)], 1, [80]),
        ([(0, 9), (10, 20), (40, 49)], 2, None),  # a kernel was lost
        ([(0, 9), (40, 49)], 2, None),  # flushes only
        ([], 3, None),
    ],
)
def test_runs_are_told_apart_in_the_record(
    activities: list[tuple[int, int]], runs: int, spans: list[int] | None
) -> None:
    """In any order of the record."""
    assert run_spans(activities, runs, 1) == spans
    assert run_spans(activities[::-1], runs, 1) == spans


def test_running_out_of_memory_is_a_failed_kernel() -> None:
    """With torch's first words, on one line."""
    stub = StubTorch()
    opened = device(stub)
    stub.fail = "memory"
    with pytest.raises(KernelFailedError) as caught:
        opened.capture(GEMM)
    assert str(caught.value) == (
        "RuntimeError: CUDA out of memory. Tried to allocate 9 GiB"
    )


def test_a_failed_launch_is_a_failed_kernel() -> None:
    """Noticed where the harness next waits; the next kernel starts clean."""
    stub = StubTorch()
    opened = device(stub)
    replay = opened.capture(GEMM)
    stub.fail = "launch"
    with pytest.raises(KernelFailedError, match="invalid configuration argument"):
        measure(opened, replay, QUICK)
    stub.fail = ""
    assert measure(opened, opened.capture(GEMM), QUICK).latency_ns == 250_000


def test_a_format_without_a_kernel_is_a_failed_kernel() -> None:
    """The benchmark has bfloat16 only, and says so."""
    with pytest.raises(KernelFailedError, match="no fp8 kernel; only bfloat16"):
        device(StubTorch()).capture(kernel("gemm", dtype="fp8", n=1, k=1, m=1))


def test_a_poisoned_context_ends_the_process() -> None:
    """Every later kernel would fail for this one's sin."""
    stub = StubTorch()
    opened = device(stub)
    opened.release()
    assert stub.calls == ["empty_cache"]
    stub.fail = "lost"
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        opened.release()


def test_collectives_need_their_group() -> None:
    """And vLLM's kernel needs vLLM."""
    alone = device(StubTorch())
    ring = kernel("nccl", op_name="all_reduce", num_gpus=2, message_size=1024)
    with pytest.raises(KernelFailedError, match="needs 2 processes"):
        alone.capture(ring)
    own = kernel("custom_allreduce", backend="graph", num_gpus=1, message_size=1024)
    with pytest.raises(KernelFailedError, match="vLLM is not installed"):
        alone.capture(own)


class Group:
    """torch.distributed, and what the other rank brings to each all-reduce."""

    ReduceOp = SimpleNamespace(MAX="max")

    def __init__(self, others: list[list[int]]) -> None:
        self.others = others
        self.int64 = None
        self.distributed = self

    def tensor(self, values: list[int], dtype: Any) -> Any:
        return SimpleNamespace(values=values, tolist=lambda: self.result)

    def all_reduce(self, shared: Any, op: str, group: Any) -> None:
        self.result = [
            max(pair) for pair in zip(shared.values, self.others.pop(0), strict=True)
        ]


def test_ranks_agree_on_the_slowest() -> None:
    """So that all of them stop after the same run."""
    ranks = Ranks(Group([[5, 1]]), 0, 2, "hosts")
    assert ranks.slowest([3, 4]) == [5, 4]


def test_what_fails_on_one_rank_fails_on_all() -> None:
    """Else the others would wait for it in the next collective."""
    with pytest.raises(KernelFailedError, match="failed on another rank"):
        Ranks(Group([[1]]), 0, 2, "hosts").agreed(lambda: "fine here")
    assert Ranks(Group([[0]]), 0, 2, "hosts").agreed(lambda: "fine") == "fine"


class FakeNvml:
    """NVML of one GPU."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM = 1

    def __init__(self, *, bits: int = 0, broken: bool = False) -> None:
        self.bits = bits
        self.broken = broken

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.1"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if self.broken:
            raise self.NVMLError
        return 123_456

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        if self.broken:
            raise self.NVMLError
        return {self.NVML_CLOCK_SM: 1755}[kind]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        return self.bits


def test_nvml_reads_the_counter_and_the_reasons() -> None:
    """0x44 is power cap and hardware thermal slowdown in nvml.h; idle (1) is none."""
    nvml = Nvml(FakeNvml(bits=0x45), "handle")
    assert nvml.energy_mj() == 123_456
    assert nvml.clocks() == Clocks(1755, ("power-cap", "hw-thermal"))
    assert device(StubTorch(), nvml).describe()["driver"] == "580.1"


def test_what_nvml_cannot_read_is_absent() -> None:
    """Older boards and virtual GPUs have no counter."""
    nvml = Nvml(FakeNvml(broken=True), "handle")
    assert nvml.energy_mj() is None
    assert nvml.clocks() == Clocks(None)
