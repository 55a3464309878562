"""First come, first served."""

from __future__ import annotations

from collections import deque

from sim.view import QueuedRequest


class FirstComeFirstServed(deque[QueuedRequest]):
    """In order of arrival; what vLLM does by default."""

    fixed_order = True
    charges_decodes = False

    push = deque.append
    push_front = deque.appendleft
    pop_front = deque.popleft

    def decoded(self, client: int, tokens: int) -> None:
        """Changes nothing."""
