"""Prefix caching: nothing is skipped that was not computed before."""

from __future__ import annotations

from sim.checks.book import Book
from sim.checks.check import Check
from sim.checks.ledger import Entry
from sim.events import IterationsEnded, IterationStarted, ReplicaDown
from sim.plan import PrefillChunk


class PrefixReuse(Check):
    """What admissions skip, against the blocks that are through all layers.

    Under layered prefill these are the blocks of batches whose last group has ended.
    """

    name = "prefix-reuse"
    law = "A prompt skips only whole blocks that its replica took through all layers."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._ready: dict[int, set[int]] = {}
        self._through: dict[int, tuple[PrefillChunk, ...]] = {}

    def started(self, event: IterationStarted) -> None:
        """Look up all that the admitted skip."""
        self._through[event.replica] = event.plan.spans[-1].prefill
        for request_id in event.plan.preempted:
            entry = self.book.entries[request_id]
            self._add(event.replica, entry, entry.goal - 1)
        for chunk in event.plan.spans[0].prefill:
            entry = self.book.entries[chunk.request_id]
            if entry.since_ns == event.time_ns and entry.cached:
                self._check(event, entry)

    def _check(self, event: IterationStarted, entry: Entry) -> None:
        size = self.book.replicas[event.replica].setup.limits.block_size
        prefix, skipped = entry.request.prefix, entry.cached
        blocks, ready = skipped // size, self._ready.get(event.replica, set())
        whole = skipped % size == 0 and skipped < entry.goal
        known = prefix.blocks(skipped, size) == blocks
        if not whole or not known or not ready.issuperset(prefix.keys(0, blocks, size)):
            raise self.broken(
                f"skips {skipped} of {entry.goal} tokens, which are not whole blocks"
                " that have been through all layers",
                event.time_ns,
                request=entry.request.id,
                replica=event.replica,
            )

    def ended(self, event: IterationsEnded) -> None:
        """Blocks of chunks that are through, and of outputs that are complete."""
        for chunk in self._through[event.replica]:
            entry = self.book.entries[chunk.request_id]
            self._add(event.replica, entry, chunk.start + chunk.tokens)
        for entry, _ in self.book.finished:
            stored = entry.request.prompt_tokens + entry.owed - 1
            self._add(event.replica, entry, stored)

    def down(self, event: ReplicaDown) -> None:
        """All of its cache is gone."""
        self._ready.pop(event.replica, None)

    def _add(self, replica: int, entry: Entry, tokens: int) -> None:
        setup = self.book.replicas[replica].setup
        if setup.prefix_caching:
            prefix, size = entry.request.prefix, setup.limits.block_size
            keys = prefix.keys(0, prefix.blocks(tokens, size), size)
            self._ready.setdefault(replica, set()).update(keys)
