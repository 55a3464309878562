"""What all kernel builders share: the bench they work on and what they give."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from calibration.profiler.columns import Value


@dataclass(frozen=True, slots=True)
class Bench:
    """What builders work with.

    Attributes:
        torch: the module.
        device: torch device of the tensors, such as "cuda:0".
        generator: source of input values; random, as power depends on them.
        num_ranks: processes in the default group of torch.distributed.
        custom_all_reduce: vLLM's communicator of the group, None without vLLM.
    """

    torch: Any
    device: Any
    generator: Any
    num_ranks: int = 1
    custom_all_reduce: Any = None

    def normal(self, *shape: int, scale: float = 1.0) -> Any:
        """A bfloat16 tensor of normal values."""
        values = self.torch.empty(
            shape, device=self.device, dtype=self.torch.bfloat16
        ).normal_(generator=self.generator)
        return values.mul_(scale)


@dataclass(frozen=True, slots=True)
class Built:
    """A kernel ready to launch.

    Attributes:
        run: launches it; the result is for tests.
        source: what it is.
        eager: never captured in a graph, launched by the host each time.
        around_capture: context in which it must be captured.
    """

    run: Callable[[], Any]
    source: str
    eager: bool = False
    around_capture: Callable[[], AbstractContextManager[Any]] = field(
        default=nullcontext
    )


Keys = Mapping[str, Value]


def optional(module: str) -> Any:
    """A module, or None where it is not installed or does not load."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError):
        return None
