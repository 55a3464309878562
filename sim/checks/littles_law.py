"""Little's law on the path: areas under counts are sums of times, as integers."""

from __future__ import annotations

from dataclasses import dataclass

from sim.checks.book import Book
from sim.checks.check import Check
from sim.checks.ledger import Phase
from sim.events import RunEnded, Stated, stated_by


@dataclass(slots=True)
class _Areas:
    """Areas under what an engine says of itself, up to ``time_ns``."""

    time_ns: int = 0
    present: int = 0
    waiting: int = 0
    present_ns: int = 0
    waiting_ns: int = 0


class LittlesLaw(Check):
    """Counts come from the engine's own words, times from the records."""

    name = "littles-law"
    law = "The area under the number in system (in queue) = sum of times in it."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._areas: dict[int, _Areas] = {}

    def state(self, event: Stated) -> None:
        """Add what has passed at the last counts, and take the new ones."""
        areas = self._areas.setdefault(stated_by(event), _Areas())
        passed_ns = event.time_ns - areas.time_ns
        areas.present_ns += passed_ns * areas.present
        areas.waiting_ns += passed_ns * areas.waiting
        areas.time_ns = event.time_ns
        areas.present, areas.waiting = event.state.present, event.state.waiting

    queued = started = ended = transfer_started = transfer_ended = stalled = state
    down = stream_started = withdrawn = state

    def run_ended(self, event: RunEnded) -> None:
        """Compare; every replica starts and ends empty."""
        for replica, areas in self._areas.items():
            in_system_ns = in_queue_ns = 0
            for record in event.records:
                entry = self.book.entries[record.request.id]
                if entry.phase is not Phase.FINISHED:
                    continue
                in_queue_ns += entry.waits_ns.get(replica, 0)
                moved = entry.prefill_replica >= 0 or entry.withdrawn
                if moved or entry.routed_ns != entry.sent_ns:
                    in_system_ns += entry.stays_ns.get(replica, 0)
                elif entry.replica == replica:
                    queued_ns = record.arrival_ns + self.book.setup.frontend_ns
                    in_system_ns += (record.finish_ns or 0) - queued_ns
            for name, area_ns, sum_ns in (
                ("system", areas.present_ns, in_system_ns),
                ("queue", areas.waiting_ns, in_queue_ns),
            ):
                if area_ns != sum_ns:
                    raise self.broken(
                        f"{area_ns} request-ns under the number in {name},"
                        f" {sum_ns} by request",
                        event.time_ns,
                        replica=replica,
                    )
