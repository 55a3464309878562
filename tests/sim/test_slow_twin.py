"""A literal loop, request by request, agrees with the simulator to the nanosecond."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given

from sim.schedulers.layer_groups import GROUP_RULES
from tests.cases import cases
from tests.sim.pricing import Scenario, outcome, scenarios, serve


@dataclass
class Sequence:
    """One request, with everything about it written down."""

    id: int
    arrival: int
    prompt: int
    output: int
    goal: int = 0  # tokens to prefill in this run
    computed: int = 0
    chunk: int = 0
    stored: int = 0
    blocks: int = 0
    preemptions: int = 0
    times: list[int] = field(default_factory=list)


@dataclass
class Twin:
    """One replica: lists of sequences and loops over them, nothing else."""

    scenario: Scenario
    waiting: list[Sequence] = field(default_factory=list)
    prefilling: list[Sequence] = field(default_factory=list)
    decoding: list[Sequence] = field(default_factory=list)  # oldest first
    batch: list[Sequence] = field(default_factory=list)  # layered: in flight
    group: int = 0
    groups: int = 1

    def free(self) -> int:
        held = self.decoding + self.prefilling
        return self.scenario.num_blocks - sum(s.blocks for s in held)

    def blocks(self, tokens: int) -> int:
        size = self.scenario.at.block_size
        return tokens // size + (1 if tokens % size else 0)

    def reserve(self) -> bool:
        """Oldest first, a block where one is needed; evict the newest when short."""
        preempted = False
        i = 0
        while i < len(self.decoding):
            s = self.decoding[i]
            while self.blocks(s.stored + 1) > s.blocks and self.free() == 0:
                victim = self.decoding.pop()
                victim.blocks = victim.stored = victim.computed = 0
                victim.goal = victim.prompt + len(victim.times)
                victim.preemptions += 1
                self.waiting.insert(0, victim)
                preempted = True
                if victim is s:
                    return True
            s.blocks = self.blocks(s.stored + 1)
            i += 1
        return preempted

    def come(self, coming: list[Sequence], seen: int) -> None:
        """Queue those of ``coming`` that were there at ``seen``."""
        while coming and coming[0].arrival <= seen:
            self.waiting.append(coming.pop(0))

    def admit(self, budget: int, preempted: bool) -> list[Sequence]:
        batch = []
        for s in self.prefilling:
            s.chunk = max(min(s.goal - s.computed, budget), 0)
            budget -= s.chunk
            batch += [s] if s.chunk else []
        while self.waiting and budget > 0 and not preempted:
            s = self.waiting[0]
            running = len(self.decoding) + len(self.prefilling)
            if running >= self.scenario.at.max_num_seqs:
                break
            if self.blocks(s.goal) > self.free():
                break
            self.waiting.pop(0)
            s.blocks, s.chunk = self.blocks(s.goal), min(s.goal, budget)
            budget -= s.chunk
            self.prefilling.append(s)
            batch.append(s)
        return batch

    def step(self, now: int, layered: bool) -> int:
        """One iteration from ``now``; returns its end."""
        at, price = self.scenario.at, self.scenario.pricer
        preempted = self.reserve()
        if layered and not self.batch:
            self.batch, self.group = self.admit(at.max_num_batched_tokens, preempted), 0
            rule = GROUP_RULES[self.scenario.rule]
            total = sum(s.chunk for s in self.batch) * self.scenario.scale
            self.groups = min(rule(total, self.scenario.groups), at.num_layers)
        elif not layered:
            budget = at.max_num_batched_tokens - len(self.decoding)
            self.batch, self.group, self.groups = self.admit(budget, preempted), 0, 1
        share, rest = divmod(at.num_layers, self.groups)
        layers = share + (1 if self.group < rest else 0)
        end = now + price.base_ns
        for s in self.decoding:
            end += price.row_ns + price.context_ns * (s.stored + 1)
        for s in self.batch:
            end += price.token_layer_ns * layers * s.chunk
        self.emit(end)
        return end

    def emit(self, end: int) -> None:
        decoded = list(self.decoding)
        for s in decoded:
            s.stored += 1
            self.token(s, end)
        self.group += 1
        if self.group < self.groups:
            return
        for s in self.batch:
            s.computed += s.chunk
            if s.computed == s.goal:
                self.prefilling.remove(s)
                s.stored = s.goal
                self.decoding.append(s)
                self.token(s, end)
        self.batch = []

    def token(self, s: Sequence, end: int) -> None:
        s.times.append(end)
        if len(s.times) == s.output:
            self.decoding.remove(s)
            s.blocks = 0


def twin_outcome(
    scenario: Scenario, layered: bool, make: type[Twin] = Twin
) -> list[tuple[list[int], int]]:
    """(token times, preemptions) of each request, by the literal loop."""
    longest = scenario.at.max_model_len
    everyone = [
        Sequence(
            r.id,
            r.arrival_ns,
            r.prompt_tokens,
            min(r.output_tokens, longest - r.prompt_tokens),
            goal=r.prompt_tokens,
        )
        for r in scenario.requests
    ]
    coming = [s for s in everyone if s.prompt < longest]
    twin, now, begun = make(scenario), 0, 0
    while coming or twin.waiting or twin.prefilling or twin.decoding:
        # Scheduled ahead: decided when the iteration that now ends began.
        twin.come(coming, begun if scenario.ahead else now)
        if not (twin.waiting or twin.prefilling or twin.decoding):
            now = max(now, coming[0].arrival)
            twin.come(coming, now)
        begun, now = now, twin.step(now, layered)
    return [(s.times, s.preemptions) for s in everyone]


@pytest.mark.parametrize("name", ["chunked-prefill", "layered-prefill"])
@cases(30)
@given(scenario=scenarios(ahead=True))
def test_simulator_equals_the_literal_loop(name: str, scenario: Scenario) -> None:
    """Token times and preemptions, with tiny KV pools and bursts of arrivals."""
    real = [(times, evicted) for _, times, evicted, _ in outcome(serve(name, scenario))]
    assert real == twin_outcome(scenario, name == "layered-prefill")
