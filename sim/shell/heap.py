"""Keeping Python's garbage collector from walking through everything during a run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_NEVER: Final = 2**31 - 1


@contextmanager
def no_full_collections() -> Iterator[None]:
    """Only young objects are searched for garbage in the block.

    Kernel tables and requests outlive a run, and each full collection would walk
    through all of them: a twentieth of the loop's time in the main job. Meanwhile a run
    makes no garbage in circles. ``gc.freeze`` and ``gc.unfreeze`` would spare the walks
    too, but hide what earlier runs left behind from the count that calls for a full
    collection: many runs would fill the memory.
    """
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)
