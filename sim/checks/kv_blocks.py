"""KV blocks: none lost, none taken twice, no more than the tokens need."""

from __future__ import annotations

from sim.checks.book import Book
from sim.checks.check import Check
from sim.events import (
    IterationsCut,
    IterationsEnded,
    IterationsPassed,
    IterationStarted,
    Queued,
    ReplicaDown,
    RunEnded,
    Stalled,
    Stated,
    stated_by,
)
from sim.transfer_events import (
    StreamStarted,
    StreamWithdrawn,
    TransferEnded,
    TransferStarted,
)


class KvConservation(Check):
    """The pool: blocks held and free make up all of it."""

    name = "kv-conservation"
    law = "0 <= used <= all blocks; no block is held by nobody."

    def state(self, event: Stated) -> None:
        """Compare with the size of the pool, and with who is there to hold any."""
        used = event.state.used_blocks
        most = self.book.replicas[stated_by(event)].setup.num_blocks
        running = event.state.running
        if not 0 <= used <= most or (used and not running):
            raise self.broken(
                f"{used} of {most} blocks used by {running} requests",
                event.time_ns,
                replica=stated_by(event),
            )

    queued = started = ended = transfer_started = transfer_ended = stalled = state
    down = stream_started = withdrawn = state


class KvSufficiency(Check):
    """Blocks by tokens.

    A prompt's blocks are taken when it is admitted, that of a decode's next token when
    its iteration begins; the last token is emitted and never stored. With a prefix
    cache, a block that several requests found or completed exists once.
    """

    name = "kv-sufficiency"
    law = "Used blocks = sum of ceil(tokens / block_size), shared ones counted once."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._used: dict[int, int] = {}
        self._since_ns: dict[int, int] = {}
        self._outside_ns: dict[int, int] = {}  # block-ns that no iteration logs
        self._left: dict[int, list[tuple[int, int]]] = {}

    def state(self, event: Stated) -> None:
        """Compare with what the requests' tokens need."""
        replica = stated_by(event)
        needed = self.book.replicas[replica].used_blocks
        if event.state.used_blocks != needed:
            raise self.broken(
                f"{event.state.used_blocks} blocks used, its requests need {needed}",
                event.time_ns,
                replica=replica,
            )
        self._used[replica] = event.state.used_blocks

    def between(
        self,
        event: Queued
        | Stalled
        | TransferStarted
        | TransferEnded
        | StreamStarted
        | StreamWithdrawn
        | ReplicaDown,
    ) -> None:
        """Also add up what is held between iterations."""
        replica = stated_by(event)
        if self.book.under_way[replica] is None:
            self._pass(replica, event.time_ns)
        elif isinstance(event, TransferEnded | StreamWithdrawn):
            blocks = self._used[replica] - self.book.replicas[replica].used_blocks
            self._left.setdefault(replica, []).append((event.time_ns, blocks))
        self.state(event)

    queued = transfer_started = transfer_ended = stalled = down = between
    stream_started = withdrawn = between

    def started(self, event: IterationStarted) -> None:
        """From here on the log counts."""
        self._pass(event.replica, event.time_ns)
        self.state(event)

    def passed(self, event: IterationsPassed) -> None:
        """Its decodes have taken more."""
        self._used[event.replica] = self.book.replicas[event.replica].used_blocks

    def ended(self, event: IterationsEnded) -> None:
        """The log counts blocks that left in an iteration to its end."""
        for left_ns, blocks in self._left.pop(event.replica, ()):
            counted_ns = self._outside_ns.get(event.replica, 0)
            over_ns = blocks * (event.time_ns - left_ns)
            self._outside_ns[event.replica] = counted_ns - over_ns
        self._since_ns[event.replica] = event.time_ns
        self.state(event)

    def cut(self, event: IterationsCut) -> None:
        """The log counts up to here."""
        self._since_ns[event.replica] = event.time_ns

    def _pass(self, replica: int, time_ns: int) -> None:
        passed_ns = time_ns - self._since_ns.get(replica, 0)
        held_ns = self._used.get(replica, 0) * passed_ns
        self._outside_ns[replica] = self._outside_ns.get(replica, 0) + held_ns
        self._since_ns[replica] = time_ns

    def run_ended(self, event: RunEnded) -> None:
        """The log's blocks times durations are those of the requests."""
        for replica, (book, log) in enumerate(
            zip(self.book.replicas, event.logs, strict=True)
        ):
            spans = zip(log.used_blocks, log.start_ns, log.end_ns, strict=True)
            logged = sum(used * (end - start) for used, start, end in spans)
            logged += self._outside_ns.get(replica, 0)
            if log.detailed and logged != book.block_ns:
                raise self.broken(
                    f"{logged} block-ns in the log, {book.block_ns} held by requests",
                    event.time_ns,
                    replica=replica,
                )
