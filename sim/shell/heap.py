"""Keeping Python's garbage collector off what was built before a run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


class _Heap:
    """How many hold the heap frozen: the interpreter has one, and thaws all of it.

    ``gc.get_freeze_count`` would tell too, but walks through every frozen object.
    """

    def __init__(self) -> None:
        self._holders = 0

    def hold(self) -> None:
        if not self._holders:
            gc.freeze()
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            gc.unfreeze()


_HEAP = _Heap()


def freeze_for_good() -> None:
    """What exists now is never searched for garbage again, in this process."""
    _HEAP.hold()


@contextmanager
def frozen_heap() -> Iterator[None]:
    """What exists now is not searched for garbage in the block.

    Kernel tables and requests outlive a run, and each full collection would walk
    through all of them: a tenth of the time of a short run (W2 of the benchmarks).
    """
    _HEAP.hold()
    try:
        yield
    finally:
        _HEAP.release()
