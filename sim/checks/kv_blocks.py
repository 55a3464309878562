"""KV blocks: none lost, none taken twice, no more than the tokens need."""

from __future__ import annotations

from sim.checks.check import Check
from sim.events import IterationsEnded, IterationStarted, Queued, RunEnded

_Stated = Queued | IterationStarted | IterationsEnded


class KvConservation(Check):
    """The pool: blocks held and free make up all of it."""

    name = "kv-conservation"
    law = "0 <= used <= all blocks; no block is held by nobody."

    def state(self, event: _Stated) -> None:
        """Compare with the size of the pool, and with who is there to hold any."""
        used = event.state.used_blocks
        most = self.book.replicas[event.replica].setup.num_blocks
        running = event.state.prefilling + event.state.decoding
        if not 0 <= used <= most or (used and not running):
            raise self.broken(
                f"{used} of {most} blocks used by {running} requests",
                event.time_ns,
                replica=event.replica,
            )

    queued = started = ended = state


class KvSufficiency(Check):
    """Blocks by tokens.

    A prompt's blocks are taken when it is admitted, that of a decode's next token when
    its iteration begins; the last token is emitted and never stored.
    """

    name = "kv-sufficiency"
    law = "Used blocks = sum of ceil(tokens stored or reserved / block_size)."

    def state(self, event: _Stated) -> None:
        """Compare with what the requests' tokens need."""
        needed = self.book.replicas[event.replica].used_blocks
        if event.state.used_blocks != needed:
            raise self.broken(
                f"{event.state.used_blocks} blocks used, its requests need {needed}",
                event.time_ns,
                replica=event.replica,
            )

    queued = started = ended = state

    def run_ended(self, event: RunEnded) -> None:
        """The log's blocks times durations are those of the requests."""
        for replica, (book, log) in enumerate(
            zip(self.book.replicas, event.logs, strict=True)
        ):
            spans = zip(log.used_blocks, log.start_ns, log.end_ns, strict=True)
            logged = sum(used * (end - start) for used, start, end in spans)
            if log.detailed and logged != book.block_ns:
                raise self.broken(
                    f"{logged} block-ns in the log, {book.block_ns} held by requests",
                    event.time_ns,
                    replica=replica,
                )
