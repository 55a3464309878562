"""The replica that has seen most of a prompt, unless load is too uneven."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from sim.prefix import Prefix
from sim.routers.least_outstanding import LeastOutstandingRequests
from sim.routers.router import Loads

BALANCE_ABS: Final = 64
BALANCE_REL: Final = 1.5
CACHE_THRESHOLD: Final = 0.3
"""Defaults of ``--balance-abs-threshold``, ``--balance-rel-threshold`` and
``--cache-threshold`` of SGLang's model gateway (smg, docs/getting-started/
load-balancing.md)."""
MAX_TREE_TOKENS: Final = 1 << 26
"""Default of the gateway's ``--max-tree-size``, here counted in tokens."""


class PrefixAffinity:
    """Cache-aware routing as SGLang's gateway does it.

    Prefix reuse against load balance, the two things that Preble (arXiv 2407.00023)
    weighs. Load is uneven if the most loaded replica has over 64 requests more than
    the least loaded one, and over 1.5 times as many. Then the least loaded takes the
    request. Else the replica that was sent most of the prompt before takes it, if that
    is over 0.3 of the prompt; of equals the less loaded one. Else the least loaded.

    The router knows what it sent where, the least recently used forgotten first, and
    nothing of what engines evict. Of a replica that takes no requests it forgets
    everything, for its cache will be gone when it comes back.

    Args:
        max_tree_tokens: Tokens remembered for each replica.
    """

    def __init__(self, max_tree_tokens: int = MAX_TREE_TOKENS) -> None:
        self._most = max_tree_tokens
        self._seen: dict[int, _Memory] = {}
        self._by_load = LeastOutstandingRequests()

    def route(self, loads: Loads) -> int:
        """Index of the replica."""
        if loads.open is not None:
            self._seen = {k: m for k, m in self._seen.items() if k in loads.open}
        chosen = self._choose(loads)
        if loads.prompt.segments:
            memory = self._seen.setdefault(chosen, _Memory(self._most))
            memory.add(loads.prompt)
        return chosen

    def _choose(self, loads: Loads) -> int:
        counts = [loads.requests[k] for k in loads.choices]
        least, most = min(counts), max(counts)
        uneven = most - least > BALANCE_ABS and most > BALANCE_REL * least
        if uneven or not loads.prompt.segments:
            return self._by_load.route(loads)
        seen = {k: memory.matched(loads.prompt) for k, memory in self._seen.items()}
        longest = max(seen.values(), default=0)
        if longest <= CACHE_THRESHOLD * loads.prompt_tokens:
            return self._by_load.route(loads)
        best = [k for k, tokens in seen.items() if tokens == longest]
        return min(best, key=lambda k: (loads.requests[k], k))


class _Memory:
    """Segments sent to one replica, each with all before it."""

    def __init__(self, most_tokens: int) -> None:
        self._most = most_tokens
        self._tokens = 0
        self._segments: OrderedDict[int, int] = OrderedDict()  # their tokens

    def matched(self, prompt: Prefix) -> int:
        """Tokens of the prompt's longest prefix that was sent before."""
        tokens = 0
        for segment, end in zip(prompt.segments, prompt.ends, strict=True):
            if segment not in self._segments:
                break
            tokens = end
        return tokens

    def add(self, prompt: Prefix) -> None:
        """Remember a prompt; the end of a prefix is forgotten before its beginning."""
        starts = (0, *prompt.ends)
        for k in reversed(range(len(prompt.segments))):
            segment = prompt.segments[k]
            if segment not in self._segments:
                self._segments[segment] = prompt.ends[k] - starts[k]
                self._tokens += self._segments[segment]
            self._segments.move_to_end(segment)
        while self._tokens > self._most:
            self._tokens -= self._segments.popitem(last=False)[1]
