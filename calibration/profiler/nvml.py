"""Energy counter and clocks of one GPU through NVML (nvidia-ml-py), where it is there.

The counter is the board's total energy since the driver was loaded; the instantaneous
power reading is never used, because it lags and averages over about a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from calibration.profiler.device import Clocks
from calibration.profiler.kernel_parts import optional

# Bits of nvmlDeviceGetCurrentClocksEventReasons that hold the clock down (nvml.h).
_SLOWDOWNS: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x04: "power-cap",
        0x08: "hw-slowdown",
        0x20: "sw-thermal",
        0x40: "hw-thermal",
        0x80: "power-brake",
    }
)


class Nvml:
    """One GPU as NVML sees it; what it cannot read is None.

    Args:
        pynvml: the module, initialised.
        handle: NVML's handle of the GPU.
    """

    def __init__(self, pynvml: Any, handle: Any) -> None:
        self._pynvml = pynvml
        self._handle = handle

    def driver_version(self) -> str:
        """Version of the driver."""
        return str(self._pynvml.nvmlSystemGetDriverVersion())

    def energy_mj(self) -> int | None:
        """Total energy in millijoules, None on GPUs without the counter."""
        try:
            read = self._pynvml.nvmlDeviceGetTotalEnergyConsumption
            return int(read(self._handle))
        except self._pynvml.NVMLError:
            return None

    def clocks(self) -> Clocks:
        """SM clock and why it is held down."""
        nvml = self._pynvml
        try:
            mhz = int(nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM))
            bits = int(nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))
        except nvml.NVMLError:
            return Clocks(None)
        return Clocks(
            mhz, tuple(name for bit, name in _SLOWDOWNS.items() if bits & bit)
        )


def open_nvml(uuid: str) -> Nvml | None:
    """The GPU of a UUID, as CUDA's and NVML's numbers differ; None without NVML."""
    pynvml = optional("pynvml")
    if pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
        return Nvml(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except pynvml.NVMLError:
        return None
