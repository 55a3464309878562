"""What an engine says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineState:
    """What an engine says of itself: requests by queue, and KV blocks held.

    ``used_blocks`` are on the GPUs; ``host_blocks`` are those of waiting requests whose
    KV cache is in host memory.
    """

    waiting: int
    prefilling: int
    decoding: int
    used_blocks: int
    parked: int = 0
    incoming: int = 0
    host_blocks: int = 0

    @property
    def running(self) -> int:
        """Requests that hold KV blocks."""
        return self.prefilling + self.decoding + self.parked + self.incoming

    @property
    def present(self) -> int:
        """Requests in the engine."""
        return self.waiting + self.running
