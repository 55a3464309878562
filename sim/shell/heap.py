"""Keeping Python's garbage collector off what was built before a run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_heap() -> Iterator[None]:
    """What exists now is not searched for garbage in the block.

    Kernel tables and requests outlive a run, and each full collection would walk
    through all of them: a tenth of the time of a short run (W2 of the benchmarks).
    """
    if gc.get_freeze_count():  # somebody froze it, and thaws it
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
