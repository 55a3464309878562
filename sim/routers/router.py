"""The role of a router, and what a front end can observe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sim.prefix import NOTHING_SHARED, Prefix


@dataclass(frozen=True, slots=True)
class Loads:
    """Requests that each replica has in progress, as the front end counts them.

    Output lengths are unknown, so tokens are those of prompts.

    Attributes:
        requests: Requests sent to each replica and not finished.
        tokens: Their prompt tokens.
        prompt: What of the prompt to be routed other prompts may share.
        prompt_tokens: All of its tokens.
        open: Replicas that take requests, in order, if not all of them do.
    """

    requests: Sequence[int]
    tokens: Sequence[int]
    prompt: Prefix = NOTHING_SHARED
    prompt_tokens: int = 0
    open: Sequence[int] | None = None

    def __len__(self) -> int:
        """Replicas."""
        return len(self.requests)

    @property
    def choices(self) -> Sequence[int]:
        """Indices of the replicas to choose from, in order; at least one."""
        return range(len(self)) if self.open is None else self.open


class Router(Protocol):
    """Chooses a replica from what a front end can observe."""

    def route(self, loads: Loads) -> int:
        """Index of the replica that receives the next request."""
        ...
