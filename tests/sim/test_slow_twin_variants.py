"""Literal loops of the further policies agree with the simulator to the nanosecond.

Groups and chunks are found by trying one size after the other, largest first.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

import pytest
from hypothesis import given

from sim.schedulers.layer_groups import GROUP_RULES
from tests.cases import cases
from tests.sim.pricing import Scenario, outcome, scenarios, serve
from tests.sim.test_slow_twin import Sequence, Twin, twin_outcome


@dataclass
class Variant(Twin):
    """Prices by layers and tokens; a subclass says which of them run."""

    layer: int = 0
    lane: list[Sequence] = field(default_factory=list)

    def took(self, work: int) -> int:
        """Duration with so many prompt tokens times layers."""
        price = self.scenario.pricer
        rows = [price.row_ns + price.context_ns * (s.stored + 1) for s in self.decoding]
        return price.base_ns + sum(rows) + price.token_layer_ns * work

    def keeps(self, work: int) -> bool:
        """Whether nobody has to wait longer than the target."""
        target = self.scenario.target_ns
        return target is None or not self.decoding or self.took(work) <= target

    def finish(self, end: int, complete: bool) -> int:
        """Emit; those of the batch too if it is through all layers."""
        self.group, self.groups = 0, 1 if complete else 2
        self.emit(end)
        return end

    def tokens(self) -> int:
        return sum(s.chunk for s in self.batch)


class Adaptive(Variant):
    def step(self, now: int, layered: bool) -> int:
        at = self.scenario.at
        preempted = self.reserve()
        if not self.batch:
            self.batch = self.admit(at.max_num_batched_tokens, preempted)
            self.layer = 0
        layers = at.num_layers - self.layer
        while layers > 1 and not self.keeps(layers * self.tokens()):
            layers -= 1
        self.layer += layers
        end = now + self.took(layers * self.tokens())
        return self.finish(end, self.layer == at.num_layers)


class Dynamic(Variant):
    def step(self, now: int, layered: bool) -> int:
        at, scale = self.scenario.at, self.scenario.scale
        preempted = self.reserve()
        budget = at.max_num_batched_tokens - len(self.decoding)
        trial = deepcopy(self)
        tokens = sum(s.chunk for s in trial.admit(budget, preempted))
        tile = max(1, 64 // scale) if scale > 1 else 64
        tiles = -(-tokens // tile)
        while tiles > 1 and not self.keeps(at.num_layers * min(tiles * tile, tokens)):
            tiles -= 1
        for s in self.prefilling:
            s.chunk = 0
        self.batch = self.admit(min(tiles * tile, tokens), preempted)
        return self.finish(now + self.took(at.num_layers * self.tokens()), True)


class Hybrid(Variant):
    def step(self, now: int, layered: bool) -> int:
        at, scenario = self.scenario.at, self.scenario
        preempted = self.reserve()
        lane: list[Sequence] = []
        if self.batch:
            lane = self.admit_lane(preempted)
        else:
            self.batch = self.admit(at.max_num_batched_tokens, preempted)
            self.place = 0
            total = self.tokens() * scenario.scale
            rule = GROUP_RULES[scenario.rule]
            self.parts = min(rule(total, scenario.groups), at.num_layers)
        share, rest = divmod(at.num_layers, self.parts)
        layers = share + (1 if self.place < rest else 0)
        self.place += 1
        work = layers * self.tokens() + at.num_layers * sum(s.chunk for s in lane)
        end, done = now + self.took(work), self.place == self.parts
        held = [] if done else self.batch
        self.batch = (self.batch if done else []) + lane
        self.finish(end, True)
        self.batch = held
        return end

    def admit_lane(self, preempted: bool) -> list[Sequence]:
        scale, lane = self.scenario.scale, []
        left = 512 // scale if scale > 1 else 512
        left = min(left, self.scenario.at.max_num_batched_tokens)
        while self.waiting and not preempted:
            s = self.waiting[0]
            running = len(self.decoding) + len(self.prefilling)
            full = running >= self.scenario.at.max_num_seqs
            if full or s.goal > left or self.blocks(s.goal) > self.free():
                break
            self.waiting.pop(0)
            s.blocks, s.chunk = self.blocks(s.goal), s.goal
            left -= s.goal
            self.prefilling.append(s)
            lane.append(s)
        return lane


TWINS: dict[str, type[Variant]] = {
    "adaptive-layered-prefill": Adaptive,
    "dynamic-chunked-prefill": Dynamic,
    "hybrid-prefill": Hybrid,
}


@pytest.mark.parametrize("name", TWINS)
@cases(30)
@given(scenario=scenarios(ahead=True))
def test_simulator_equals_the_literal_loop(name: str, scenario: Scenario) -> None:
    """Token times and preemptions, with tiny KV pools and bursts of arrivals."""
    real = [(times, evicted) for _, times, evicted, _ in outcome(serve(name, scenario))]
    assert real == twin_outcome(scenario, layered=True, make=TWINS[name])
