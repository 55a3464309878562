"""The O(1) decode batch against a dictionary that is updated token by token."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

from sim.decode_batch import DecodeBatch
from tests.cases import CountedMachine, cases


class AgainstDictionary(CountedMachine):
    """Joins, departures and ticks in any order."""

    @initialize(block_size=st.integers(1, 5))
    def start(self, block_size: int) -> None:
        self.block_size = block_size
        self.batch = DecodeBatch(block_size)
        self.model: dict[int, list[int]] = {}  # id -> [stored, remaining]
        self.ticks = 0
        self.next_id = 0

    @rule(stored=st.integers(1, 20), remaining=st.integers(1, 8))
    def join(self, stored: int, remaining: int) -> None:
        self.batch.join(self.next_id, stored, remaining)
        self.model[self.next_id] = [stored, remaining]
        self.next_id += 1

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.model)))
        _, stored = self.batch.leave(request_id)
        assert stored == self.model.pop(request_id)[0]

    @precondition(lambda self: self.model)
    @rule(ticks=st.integers(1, 3))
    def advance(self, ticks: int) -> None:
        for _ in range(ticks):
            self.ticks += 1
            for counts in self.model.values():
                counts[0] += 1
                counts[1] -= 1
            finished = [i for i, (_, left) in self.model.items() if left == 0]
            assert self.batch.advance() == finished
            for request_id in finished:
                member, stored = self.batch.leave(request_id)
                assert stored == self.model.pop(request_id)[0]
                assert member.stop_tick == self.ticks
                assert stored - member.stored == self.ticks - member.join_tick

    @invariant()
    def aggregates_equal_a_recount(self) -> None:
        stored = [kept for kept, _ in self.model.values()]
        assert self.batch.size == len(stored)
        assert self.batch.stored_tokens == sum(stored)
        assert self.batch.tick == self.ticks
        needed = sum(
            -(-(kept + 1) // self.block_size) - -(-kept // self.block_size)
            for kept in stored
        )
        assert self.batch.blocks_needed() == needed

    @invariant()
    def newest_come_first(self) -> None:
        expected = [(i, kept) for i, (kept, _) in reversed(self.model.items())]
        assert list(self.batch.newest_first()) == expected


AgainstDictionary.TestCase.settings = settings(cases(15), stateful_step_count=30)
TestDecodeBatch = AgainstDictionary.TestCase


def test_a_departed_member_does_not_finish() -> None:
    """A preempted request leaves the bucket of the tick it would have ended at."""
    batch = DecodeBatch(16)
    batch.join(7, stored=16, remaining=1)
    batch.join(8, stored=15, remaining=1)
    assert batch.blocks_needed() == 1
    batch.leave(7)
    assert batch.blocks_needed() == 0
    assert batch.advance() == [8]
