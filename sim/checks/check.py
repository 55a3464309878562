"""What a check is, and how it says that its law is broken."""

from __future__ import annotations

from typing import ClassVar

from sim.checks.book import Book
from sim.errors import InvariantError


class Check:
    """One law, watched through a run.

    A subclass has a method for each event it looks at, named after it in
    ``sim.checks.checker.METHODS``; it is called after the book took note of the event.

    Attributes:
        name: Of the law, in words with dashes.
        law: What must hold, in one sentence.
        book: State of the run, rebuilt from its events.
    """

    name: ClassVar[str]
    law: ClassVar[str]

    def __init__(self, book: Book) -> None:
        self.book = book

    def broken(
        self,
        problem: str,
        time_ns: int,
        *,
        request: int | None = None,
        replica: int | None = None,
    ) -> InvariantError:
        """The error to raise."""
        return InvariantError(self.name, problem, time_ns, request, replica)
