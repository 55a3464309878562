"""When something happened last."""

from __future__ import annotations

from sim.events import Event, Observer, RunStarted


class Watch:
    """Passes events on, and remembers the time of the last one.

    The clock does not: it also stops at the end of iterations that an arrival called
    off, where nothing happens.

    Attributes:
        time_ns: Of the last event.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.time_ns = 0

    def on(self, event: Event) -> None:
        """Pass an event on."""
        if not isinstance(event, RunStarted):
            self.time_ns = event.time_ns
        self._observer.on(event)
