"""KV blocks of an engine against sets of numbered blocks, in any order of events."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from sim.engine import Engine
from sim.plan import StepPlan
from sim.request import Request, RequestRecord
from sim.schedulers import SCHEDULERS
from tests.cases import CountedMachine, cases
from tests.sim.pricing import limits, scheduler


@dataclass
class Holder:
    """What a request that runs has stored, and the blocks it stores it in."""

    blocks: set[int]
    tokens: int
    goal: int  # tokens to prefill before it decodes


class Pool:
    """Numbered blocks, each free or in the set of one request."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.free = set(range(num_blocks))
        self.holders: dict[int, Holder] = {}
        self._block_size = block_size

    def admit(self, request_id: int, tokens: int) -> None:
        """Room for a whole prompt."""
        self.holders[request_id] = Holder(set(), 0, tokens)
        self._grow(request_id, tokens)

    def decode(self, request_id: int) -> None:
        """Room for one token more, which is stored at once."""
        holder = self.holders[request_id]
        holder.tokens += 1
        self._grow(request_id, holder.tokens)

    def release(self, request_id: int) -> None:
        self.free |= self.holders.pop(request_id).blocks

    def _grow(self, request_id: int, tokens: int) -> None:
        blocks = self.holders[request_id].blocks
        while len(blocks) * self._block_size < tokens:
            blocks.add(self.free.pop())  # KeyError when overdrawn


class AgainstSets(CountedMachine):
    """Requests arrive and iterations run; the model only reads the plans.

    The pool holds little more than one request at its longest, so many are evicted.
    """

    @initialize(
        name=st.sampled_from(sorted(SCHEDULERS)),
        block_size=st.integers(1, 5),
        max_model_len=st.integers(2, 24) | st.integers(12, 24),
        spare=st.integers(0, 4),
        budget=st.integers(1, 40) | st.integers(20, 40),
        seqs=st.integers(1, 6) | st.integers(4, 6),
        scale=st.sampled_from((1, 100)),
    )
    def start(
        self,
        name: str,
        block_size: int,
        max_model_len: int,
        spare: int,
        budget: int,
        seqs: int,
        scale: int,
    ) -> None:
        at = limits(
            max_num_batched_tokens=budget,
            max_num_seqs=seqs,
            max_model_len=max_model_len,
            block_size=block_size,
        )
        total = at.blocks(max_model_len) + spare
        self.engine = Engine(scheduler(name, at, scale=scale), at, total)
        self.pool = Pool(total, block_size)
        self.total = total
        self.records: list[RequestRecord] = []
        self.emitted: dict[int, int] = {}
        self.running: StepPlan | None = None

    @rule(
        rows=st.lists(
            st.tuples(st.integers(1, 6) | st.integers(1, 24), st.integers(1, 24)),
            min_size=1,
            max_size=4,
        )
    )
    def submit(self, rows: list[tuple[int, int]]) -> None:
        """Also in the middle of an iteration."""
        for prompt, output in rows:
            request = Request(
                id=len(self.records),
                arrival_ns=0,
                prompt_tokens=prompt,
                output_tokens=output,
            )
            record = RequestRecord(request=request, arrival_ns=0, runs=[])
            self.engine.submit(record)
            self.records.append(record)
            self.emitted[request.id] = 0

    @precondition(lambda self: self.running is None and self.engine.has_work)
    @rule()
    def begin(self) -> None:
        plan = self.engine.plan()
        self.engine.begin(plan, 0)
        self.running = plan
        for request_id in plan.preempted:
            self.pool.release(request_id)
        if plan.spans[0].decode:
            for request_id, holder in self.pool.holders.items():
                if holder.tokens >= holder.goal:
                    self.pool.decode(request_id)
        for chunk in plan.spans[0].prefill:
            if chunk.request_id not in self.pool.holders:
                prompt = self.records[chunk.request_id].request.prompt_tokens
                again = self.emitted[chunk.request_id]
                self.pool.admit(chunk.request_id, prompt + again)

    @precondition(lambda self: self.running is not None)
    @rule()
    def finish(self) -> None:
        assert self.running is not None
        plan, self.running = self.running, None
        done = {record.request.id for record in self.engine.finish(plan, 1)}
        if plan.spans[0].decode:
            for request_id, holder in self.pool.holders.items():
                if holder.tokens >= holder.goal:
                    self.emitted[request_id] += 1
        for chunk in plan.spans[-1].prefill:
            holder = self.pool.holders[chunk.request_id]
            holder.tokens += chunk.tokens
            if holder.tokens == holder.goal:
                self.emitted[chunk.request_id] += 1
        owed = {i: self.records[i].output_tokens for i in self.pool.holders}
        assert done == {i for i, tokens in owed.items() if self.emitted[i] == tokens}
        for request_id in done:
            self.pool.release(request_id)

    @precondition(lambda self: self.running is None)
    @rule(times=st.integers(2, 6))
    def iterate(self, times: int) -> None:
        for _ in range(times):
            if self.engine.has_work:
                self.begin()
                self.free_blocks_are_as_many()
                self.finish()
                self.free_blocks_are_as_many()

    def teardown(self) -> None:
        """Run dry: no request waits for ever, and every block comes back."""
        if sys.exc_info()[0] is None and hasattr(self, "engine"):
            if self.running is not None:
                self.finish()
            while self.engine.has_work:
                self.iterate(1)
            assert len(self.pool.free) == self.engine.free_blocks == self.total
        super().teardown()

    @invariant()
    def free_blocks_are_as_many(self) -> None:
        assert self.engine.free_blocks == len(self.pool.free)
        held = sum(len(holder.blocks) for holder in self.pool.holders.values())
        assert held + len(self.pool.free) == self.total
        running = {*self.engine.prefilling}
        running |= {request_id for request_id, _ in self.engine.decoding.newest_first()}
        assert running == self.pool.holders.keys()


AgainstSets.TestCase.settings = settings(cases(15), stateful_step_count=20)
TestKvPool = AgainstSets.TestCase
