"""As much of torch as the GPU device uses, on a simulated stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

KERNEL_MS = 0.25
GRAPH_MS = 0.26  # events also enclose the launch of the graph
FLUSH_MS = 0.06
L2_BYTES = 50 << 20


class Tensor:
    """Knows its shape and the calls made on it."""

    def __init__(self, torch: StubTorch, shape: Any) -> None:
        self.torch = torch
        self.shape = shape

    def normal_(self, generator: Any) -> Tensor:
        return self

    def mul_(self, scale: float) -> Tensor:
        return self

    def zero_(self) -> Tensor:
        self.torch.calls.append("flush")
        self.torch.activity(FLUSH_MS)
        self.torch.now_ms += FLUSH_MS
        return self


class Event:
    def __init__(self, torch: StubTorch) -> None:
        self.torch = torch
        self.at_ms = 0.0

    def elapsed_time(self, stop: Event) -> float:
        return stop.at_ms - self.at_ms


class Graph:
    def __init__(self, torch: StubTorch) -> None:
        self.torch = torch

    def replay(self) -> None:
        if self.torch.fail == "launch":
            raise RuntimeError("CUDA error: invalid configuration argument")
        self.torch.calls.append("replay")
        # two kernels one after the other, the record as unordered as CUPTI's buffers
        self.torch.activity(KERNEL_MS / 2, after_ms=KERNEL_MS / 2)
        self.torch.activity(KERNEL_MS / 2)
        self.torch.now_ms += GRAPH_MS if self.torch.cupti else KERNEL_MS


class StubTorch:
    """The module; `calls` has what was done, in order."""

    __version__ = "2.stub"
    bfloat16 = int8 = int64 = None

    def __init__(
        self, *, available: bool = True, fail: str = "", cupti: bool = False
    ) -> None:
        self.calls: list[str] = []
        self.now_ms = 0.0
        self.fail = fail
        self.cupti = cupti
        self.traced: list[Any] = []
        self.autograd = SimpleNamespace(DeviceType=SimpleNamespace(CUDA="gpu"))
        self.profiler = SimpleNamespace(
            ProfilerActivity=SimpleNamespace(CUDA="cuda"),
            supported_activities=lambda: {"cuda"} if cupti else {"cpu"},
            profile=self._profile,
        )
        self.buffers: list[Any] = []
        self.seeds: list[int] = []
        self.version = SimpleNamespace(cuda="13.0")
        self.nn = SimpleNamespace(functional=SimpleNamespace(linear=self._linear))
        stream = SimpleNamespace(
            wait_stream=lambda other: None, record_event=self._record
        )
        self.cuda = SimpleNamespace(
            is_available=lambda: available,
            current_device=lambda: 0,
            get_device_properties=lambda index: SimpleNamespace(
                name="Stub GPU", total_memory=80, L2_cache_size=L2_BYTES, uuid="u"
            ),
            Stream=lambda: stream,
            current_stream=lambda: stream,
            stream=self._context("side"),
            graph=self._context("capture"),
            CUDAGraph=lambda: Graph(self),
            Event=lambda enable_timing: Event(self),
            synchronize=self._synchronize,
            empty_cache=lambda: self.calls.append("empty_cache"),
        )

    def empty(self, shape: Any, **options: Any) -> Tensor:
        if self.fail == "memory" and self.buffers:
            raise RuntimeError("CUDA out of memory.\n Tried to allocate 9 GiB")
        self.buffers.append(shape)
        return Tensor(self, shape)

    def activity(self, ms: float, *, after_ms: float = 0.0) -> None:
        """The GPU's record of a kernel, and the CPU's of its launch."""
        begin_us = 1e3 * (self.now_ms + after_ms)
        span = SimpleNamespace(start=begin_us, end=begin_us + 1e3 * ms)
        self.traced.append(SimpleNamespace(device_type="gpu", time_range=span))
        self.traced.append(SimpleNamespace(device_type="cpu", time_range=span))

    @contextmanager
    def _profile(self, activities: Any) -> Iterator[Any]:
        self.calls.append("profile")
        self.traced.clear()
        yield SimpleNamespace(
            events=lambda: [] if self.fail == "profile" else self.traced
        )

    def device(self, kind: str, index: int) -> str:
        return f"{kind}:{index}"

    def Generator(self, device: str) -> Any:  # noqa: N802
        return SimpleNamespace(manual_seed=self.seeds.append)

    def _linear(self, x: Tensor, weight: Tensor) -> None:
        self.calls.append("linear")

    def _record(self, event: Event) -> None:
        event.at_ms = self.now_ms

    def _synchronize(self) -> None:
        if self.fail == "lost":
            raise RuntimeError("an illegal memory access was encountered")

    def _context(self, word: str) -> Any:
        @contextmanager
        def context(*arguments: Any, **options: Any) -> Iterator[None]:
            self.calls.append(word)
            yield
            self.calls.append(f"/{word}")

        return context
