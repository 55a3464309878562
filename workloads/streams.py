"""Random streams by name: adding a stream never changes another one."""

from __future__ import annotations

import hashlib
import struct

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """Independent generator of the stream ``name`` under ``seed``.

    The spawn key is the SHA-256 of the name, not the order of creation, so streams
    such as ``"arrivals"`` or ``"prompt_len"`` stay what they are when others are added
    (the trap of positional streams: ns-3 manual, "Random variables").

    Args:
        seed: Non-negative integer, the run's only seed.
        name: Any text; equal names give equal streams.

    Returns:
        A PCG64 generator at the start of its stream.
    """
    words = struct.unpack("<8I", hashlib.sha256(name.encode()).digest())
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=words)
    return np.random.Generator(np.random.PCG64(sequence))
