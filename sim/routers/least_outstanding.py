"""The least loaded replica, by requests or by tokens."""

from __future__ import annotations

from sim.routers.router import Loads


class LeastOutstandingRequests:
    """The replica with the fewest requests in progress, lowest index on ties."""

    def route(self, loads: Loads) -> int:
        """Index of the least loaded replica."""
        return min(loads.choices, key=loads.requests.__getitem__)


class LeastOutstandingTokens:
    """The replica with the fewest prompt tokens in progress, lowest index on ties.

    One long prompt weighs as much as many short ones, in prefill time and KV cache.
    """

    def route(self, loads: Loads) -> int:
        """Index of the least loaded replica."""
        return min(loads.choices, key=loads.tokens.__getitem__)
