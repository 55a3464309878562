"""The group of processes, one per GPU, that torchrun started; or this process alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from calibration.profiler.device import KernelFailedError

_T = TypeVar("_T")
_LONGEST_REASON: Final = 120
# What torch and the kernel libraries raise for a kernel that cannot run here; running
# out of memory is a RuntimeError.
_FAILURES: Final = (
    KernelFailedError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ImportError,
)


class Ranks:
    """Agreement between ranks: what one fails, all fail; durations are the slowest's.

    Args:
        torch: the module.
        rank: this process.
        size: processes in the group.
        host_group: group of torch.distributed over the hosts, None when alone.
    """

    def __init__(self, torch: Any, rank: int, size: int, host_group: Any) -> None:
        self._torch = torch
        self.rank = rank
        self.size = size
        self.host_group = host_group

    def agreed(self, step: Callable[[], _T]) -> _T:
        """The result of a step that every rank takes.

        Raises:
            KernelFailedError: on all ranks, if the step fails on any.
        """
        reason = ""
        try:
            result = step()
        except _FAILURES as error:
            text = " ".join(str(error).split())[:_LONGEST_REASON]
            kind = "" if isinstance(error, KernelFailedError) else type(error).__name__
            reason = f"{kind}: {text}" if kind else text
        if self.slowest([bool(reason)]) != [0]:
            raise KernelFailedError(reason or "failed on another rank")
        return result

    def slowest(self, values: Sequence[int]) -> list[int]:
        """The largest of each value over all ranks."""
        if self.host_group is None:
            return [int(value) for value in values]
        collectives = self._torch.distributed
        shared = self._torch.tensor(list(values), dtype=self._torch.int64)
        collectives.all_reduce(
            shared, op=collectives.ReduceOp.MAX, group=self.host_group
        )
        return [int(value) for value in shared.tolist()]


def join(torch: Any) -> Ranks:
    """The group torchrun described in the environment, on this process's GPU.

    torchrun sets WORLD_SIZE, RANK and LOCAL_RANK (PyTorch, torch.distributed.run).
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks(torch, 0, 1, None)
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl")
    host_group = torch.distributed.new_group(backend="gloo")
    return Ranks(torch, int(os.environ["RANK"]), size, host_group)
