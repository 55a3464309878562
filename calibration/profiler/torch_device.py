"""The real GPU through torch, which is imported when opened: events, graphs, CUPTI."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Any, Final

from calibration.profiler.columns import Kernel
from calibration.profiler.device import (
    Clocks,
    DeviceLostError,
    Event,
    KernelFailedError,
    Replay,
)
from calibration.profiler.kernel_parts import Bench, Built, optional
from calibration.profiler.kernel_trace import KernelTrace, open_trace
from calibration.profiler.kernels import build
from calibration.profiler.nvml import Nvml, open_nvml
from calibration.profiler.ranks import Ranks, join
from sim.errors import ConfigError

_EXTRA: Final = 'pip install "servescope[profile]"'
_CAPTURE_WARMUP: Final = 3  # PyTorch's own advice before a capture (CUDA semantics)
# NCCL's watchdog thread may call CUDA meanwhile (PyTorch, torch.cuda.graph).
_CAPTURE_MODE: Final = "thread_local"
_FLUSH_FACTOR: Final = 2
# The largest L2 of today's GPUs, where torch does not say (B200: 126 MB, data sheet).
_LARGEST_L2_BYTES: Final = 128 << 20
_VLLM_ALL_REDUCE: Final = "vllm.distributed.device_communicators.custom_all_reduce"


def open_device(seed: int) -> TorchDevice:
    """The GPU of this process.

    Args:
        seed: of the kernels' input values.

    Raises:
        ConfigError: one line that names what is missing and what to install.
    """
    torch = optional("torch")
    if torch is None:
        raise ConfigError(f"calibrate profile: torch is not installed; {_EXTRA}")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"calibrate profile: torch {torch.__version__} finds no CUDA device;"
            f" needed: an NVIDIA GPU, its driver, a CUDA build of torch ({_EXTRA})"
        )
    ranks = join(torch)
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    nvml = open_nvml(f"GPU-{properties.uuid}")
    return TorchDevice(torch, ranks, nvml, seed)


class TorchDevice:
    """Implements :class:`calibration.profiler.device.Device` on the current GPU.

    Args:
        torch: the module.
        ranks: the group.
        nvml: energy counter and clocks, None without NVML.
        seed: of the kernels' input values.
    """

    def __init__(self, torch: Any, ranks: Ranks, nvml: Nvml | None, seed: int) -> None:
        index = torch.cuda.current_device()
        properties = torch.cuda.get_device_properties(index)
        self._torch = torch
        self._ranks = ranks
        self._nvml = nvml
        self._seed = seed
        self._failures: list[str] = []
        self._name = str(properties.name)
        self.memory_bytes = int(properties.total_memory)
        self.rank = ranks.rank
        self.num_ranks = ranks.size
        device = torch.device("cuda", index)
        l2_bytes = getattr(properties, "L2_cache_size", 0) or _LARGEST_L2_BYTES
        self._flush = torch.empty(
            _FLUSH_FACTOR * l2_bytes, dtype=torch.int8, device=device
        )
        self._trace = open_trace(torch, self.flush_l2)
        self._bench = Bench(
            torch=torch,
            device=device,
            generator=torch.Generator(device=device),
            num_ranks=ranks.size,
            custom_all_reduce=_custom_all_reduce(ranks, device),
        )

    def describe(self) -> Mapping[str, str]:
        """Device, driver and library versions."""
        torch, nvml = self._torch, self._nvml
        libraries = {name: optional(name) for name in ("flash_attn", "vllm")}
        return {
            "gpu": self._name,
            "driver": "unknown" if nvml is None else nvml.driver_version(),
            "torch": str(torch.__version__),
            "cuda": str(torch.version.cuda),
            **{
                name: "none" if module is None else str(module.__version__)
                for name, module in libraries.items()
            },
            "kernel_timer": "none" if self._trace is None else "CUPTI",
            "energy_counter": "none" if self.energy_mj() is None else "NVML",
        }

    def capture(self, kernel: Kernel) -> TorchReplay:
        """Allocate on all ranks, then warm up and capture on all ranks."""
        # the same input values whether or not the session was resumed
        self._bench.generator.manual_seed(self._seed)
        self._failures.clear()
        built = self._ranks.agreed(lambda: build(kernel, self._bench))
        return self._ranks.agreed(lambda: self._captured(built))

    def release(self) -> None:
        """Free the captures nobody holds any more, and see that the GPU answers."""
        gc.collect()
        try:
            self._torch.cuda.synchronize()
            self._torch.cuda.empty_cache()
        except RuntimeError as error:
            text = " ".join(str(error).split())
            raise DeviceLostError(
                f"the GPU answers no more ({text}); run the same command to go on"
            ) from error

    def flush_l2(self) -> None:
        """Overwrite a buffer of twice the L2."""
        self._flush.zero_()

    def record(self) -> Event:
        """A CUDA event on the current stream."""
        event: Event = self._torch.cuda.Event(enable_timing=True)
        self._torch.cuda.current_stream().record_event(event)
        return event

    def elapsed_ns(self, spans: Sequence[tuple[Any, Any]]) -> list[int]:
        """CUDA event times; torch gives milliseconds at about 0.5 us resolution."""
        self._ranks.agreed(self._settle)
        own = [round(start.elapsed_time(stop) * 1e6) for start, stop in spans]
        return self._ranks.slowest(own)

    def kernel_ns(self, replay: Replay, runs: int) -> list[int] | None:
        """CUPTI's record of the kernels, where every rank has one."""
        trace = self._trace
        works = self._ranks.agreed(lambda: trace is not None and trace.works())
        # before any launch: a rank that stayed away would hang a collective
        if trace is None or self._ranks.slowest([not works]) != [0]:
            return None
        own = self._ranks.agreed(lambda: self._traced(trace, replay, runs))
        if self._ranks.slowest([not own]) != [0]:
            return None
        return self._ranks.slowest(own)

    def _traced(self, trace: KernelTrace, replay: Replay, runs: int) -> list[int]:
        """Empty where the record is incomplete."""
        spans = trace.spans(replay.run, runs)
        self._settle()
        return spans or []

    def synchronize(self) -> None:
        """Wait for the stream, on all ranks."""
        self._ranks.agreed(self._settle)

    def synchronize_ranks(self) -> None:
        """Wait until all ranks are here."""
        self._ranks.slowest([0])

    def energy_mj(self) -> int | None:
        """NVML's total-energy counter."""
        return None if self._nvml is None else self._nvml.energy_mj()

    def clocks(self) -> Clocks:
        """NVML's clocks."""
        return Clocks(None) if self._nvml is None else self._nvml.clocks()

    def _settle(self) -> None:
        """Wait, and raise what a launch has failed with meanwhile."""
        self._torch.cuda.synchronize()
        if self._failures:
            raise KernelFailedError(self._failures[0])

    def _captured(self, built: Built) -> TorchReplay:
        cuda = self._torch.cuda
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(_CAPTURE_WARMUP):
                built.run()
        cuda.current_stream().wait_stream(side)
        cuda.synchronize()
        if built.eager:
            return TorchReplay(built, None, self._failures)
        graph = cuda.CUDAGraph()
        with (
            built.around_capture(),
            cuda.graph(graph, capture_error_mode=_CAPTURE_MODE),
        ):
            built.run()
        return TorchReplay(built, graph, self._failures)


class TorchReplay:
    """A captured graph, or a callable launched eagerly.

    Args:
        built: the kernel; kept, as a graph does not own its inputs.
        graph: its CUDA graph, None if it is launched eagerly.
        failures: where a failed launch is noted, for the next moment at which all
            ranks can agree that it failed.
    """

    def __init__(self, built: Built, graph: Any, failures: list[str]) -> None:
        self._failures = failures
        self.source = built.source
        self.host_paced = graph is None
        self._built = built
        self._launch = built.run if graph is None else graph.replay

    def run(self) -> None:
        """Launch once."""
        try:
            self._launch()
        except RuntimeError as error:
            self._failures.append(str(error))


def _custom_all_reduce(ranks: Ranks, device: Any) -> Any:
    """The group's communicator of vLLM; None when alone or without vLLM."""
    module = None if ranks.host_group is None else optional(_VLLM_ALL_REDUCE)
    if module is None:
        return None
    communicator = module.CustomAllreduce(group=ranks.host_group, device=device)
    # newer versions allocate their shared buffers in a second step
    getattr(communicator, "finalize_p2p", lambda: None)()
    return communicator
