"""The decoding requests of a replica, in aggregates that cost O(1) per iteration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DecodeMember:
    """A decoding request: KV tokens stored when it joined, and when it will stop."""

    stored: int
    join_tick: int
    stop_tick: int


class DecodeBatch:
    """Every decoding request advances by one token per tick.

    No loop over the batch runs per iteration: a member's stored tokens follow from
    the tick it joined at, completions wait in a bucket per tick, and block needs are
    counted by phase (stored tokens modulo the block size).

    Attributes:
        tick: Decode iterations done so far; index into the replica's end times.
        size: Number of members.
        stored_tokens: KV tokens stored for all members together.
    """

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._members: dict[int, DecodeMember] = {}
        self._phases = [0] * block_size
        self._finishing: dict[int, dict[int, None]] = {}
        self.tick = 0
        self.size = 0
        self.stored_tokens = 0

    def join(self, request_id: int, stored: int, remaining: int) -> None:
        """Add a request that stores ``stored`` tokens and owes ``remaining`` >= 1."""
        stop = self.tick + remaining
        self._members[request_id] = DecodeMember(stored, self.tick, stop)
        self._finishing.setdefault(stop, {})[request_id] = None
        self._phases[(stored - self.tick) % self._block_size] += 1
        self.size += 1
        self.stored_tokens += stored

    def leave(self, request_id: int) -> tuple[DecodeMember, int]:
        """Remove a request; returns it with the KV tokens it stores now."""
        member = self._members.pop(request_id)
        bucket = self._finishing.get(member.stop_tick)
        if bucket is not None:
            bucket.pop(request_id, None)
            if not bucket:
                del self._finishing[member.stop_tick]
        phase = (member.stored - member.join_tick) % self._block_size
        self._phases[phase] -= 1
        stored = member.stored + self.tick - member.join_tick
        self.size -= 1
        self.stored_tokens -= stored
        return member, stored

    def blocks_needed(self) -> int:
        """New KV blocks for the next token of every member."""
        return self._phases[-self.tick % self._block_size]

    def steps_to_completion(self) -> int:
        """Ticks until the first members emit their last token; needs a member."""
        return min(self._finishing) - self.tick

    def steps_within(self, free_blocks: int) -> int:
        """Ticks that ``free_blocks`` KV blocks suffice for; needs a member."""
        cycles, left = divmod(free_blocks, self.size)  # a cycle takes one block each
        for step, blocks in enumerate(self.cycle()):
            left -= blocks
            if left < 0:
                return cycles * self._block_size + step
        raise AssertionError("a cycle takes as many blocks as there are members")

    def blocks_within(self, steps: int) -> int:
        """New KV blocks for all of the next ``steps`` ticks."""
        cycles, rest = divmod(steps, self._block_size)
        return cycles * self.size + sum(self.cycle()[:rest])

    def cycle(self) -> list[int]:
        """New KV blocks for each of the next ``block_size`` ticks."""
        first = -self.tick % self._block_size
        downwards = self._phases[first::-1]
        return downwards + self._phases[:first:-1]

    def newest_first(self) -> Iterator[tuple[int, int]]:
        """Yield (request id, KV tokens stored now), newest member first."""
        for request_id in reversed(self._members):
            member = self._members[request_id]
            yield request_id, member.stored + self.tick - member.join_tick

    def advance(self, steps: int = 1) -> list[int]:
        """``steps`` tokens for every member; returns those that emitted their last.

        ``steps`` is at most :meth:`steps_to_completion`.
        """
        self.tick += steps
        self.stored_tokens += steps * self.size
        return list(self._finishing.pop(self.tick, ()))
