"""Requests of a workload in columns: 32 bytes each instead of an object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Final, overload

import numpy as np
import numpy.typing as npt

from sim.prefix import NOTHING_SHARED, Prefix
from sim.request import Request

Int64 = npt.NDArray[np.int64]

_BLOCK: Final = 4096
"""Requests that are turned into objects at a time while iterating."""


class RequestTable(Sequence[Request]):
    """Requests with ids 0, 1, ...; each is built when it is asked for.

    Args:
        arrival_ns: See :class:`~sim.request.Request`; int64, shape (n,), as the others.
        prompt_tokens: Prompt lengths.
        output_tokens: True output lengths.
        client: Who sent them.
        prefixes: What each may share; None: nothing.
        think_ns: Think times of later turns, negative for first turns; None: no
            sessions.
    """

    def __init__(
        self,
        arrival_ns: Int64,
        prompt_tokens: Int64,
        output_tokens: Int64,
        client: Int64,
        prefixes: Sequence[Prefix] | None = None,
        think_ns: Int64 | None = None,
    ) -> None:
        self.arrival_ns = arrival_ns
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.client = client
        self.prefixes = prefixes
        self.think_ns = think_ns

    def __len__(self) -> int:
        """Number of requests."""
        return int(self.arrival_ns.size)

    @overload
    def __getitem__(self, index: int) -> Request: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Request, ...]: ...

    def __getitem__(self, index: int | slice) -> Request | tuple[Request, ...]:
        """One request, or several."""
        if isinstance(index, slice):
            return tuple(self[k] for k in range(*index.indices(len(self))))
        position = range(len(self))[index]
        return self._built(position, position + 1)[0]

    def __iter__(self) -> Iterator[Request]:
        """Requests in workload order."""
        for first in range(0, len(self), _BLOCK):
            yield from self._built(first, first + _BLOCK)

    def __eq__(self, other: object) -> bool:
        """Whether the other holds equal requests in the same order."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _built(self, first: int, last: int) -> list[Request]:
        columns = (self.arrival_ns, self.prompt_tokens, self.output_tokens, self.client)
        rows = zip(*(column[first:last].tolist() for column in columns), strict=True)
        shared = self.prefixes
        prefixes = repeat(NOTHING_SHARED) if shared is None else shared[first:last]
        thinks = repeat(-1)
        if self.think_ns is not None:
            thinks = self.think_ns[first:last].tolist()
        return [
            Request(
                id=k,
                arrival_ns=a,
                prompt_tokens=p,
                output_tokens=o,
                client=c,
                prefix=prefix,
                think_ns=None if think < 0 else think,
            )
            for k, ((a, p, o, c), prefix, think) in enumerate(
                zip(rows, prefixes, thinks, strict=False), first
            )
        ]
