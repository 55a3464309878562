"""Replicas that take requests from one router."""

from __future__ import annotations

from collections.abc import Sequence

from sim.request import RequestRecord
from sim.routers import Loads, Router


class Pool:
    """A router over some replicas, and what each has in progress.

    Args:
        router: Chooses among them.
        replicas: Their indices in the cluster, consecutive.
    """

    def __init__(self, router: Router, replicas: Sequence[int]) -> None:
        self._router = router
        self._first = replicas[0]
        self._requests = [0] * len(replicas)
        self._tokens = [0] * len(replicas)
        self._open: list[int] | None = None  # positions, if not all take requests

    @property
    def is_open(self) -> bool:
        """Whether any replica takes requests."""
        return self._open is None or bool(self._open)

    def set_open(self, replicas: Sequence[int]) -> None:
        """Route requests to these replicas only."""
        positions = [replica - self._first for replica in sorted(replicas)]
        everybody = len(positions) == len(self._requests)
        self._open = None if everybody else positions

    @property
    def total(self) -> int:
        """Requests in progress on all replicas or on their way."""
        return sum(self._requests)

    def outstanding(self, replica: int) -> int:
        """Requests that a replica has in progress or on their way to it."""
        return self._requests[replica - self._first]

    def enter(self, record: RequestRecord) -> int:
        """Choose a replica for a request and count it there; returns its index.

        There must be an open one.
        """
        request = record.request
        prompt = request.prefix.within(request.prompt_tokens)
        loads = Loads(
            self._requests, self._tokens, prompt, request.prompt_tokens, self._open
        )
        chosen = self._router.route(loads)
        self._add(chosen, record, 1)
        return self._first + chosen

    def leave(self, replica: int, record: RequestRecord) -> None:
        """Count a request no longer."""
        self._add(replica - self._first, record, -1)

    def _add(self, position: int, record: RequestRecord, members: int) -> None:
        self._requests[position] += members
        self._tokens[position] += members * record.request.prompt_tokens
