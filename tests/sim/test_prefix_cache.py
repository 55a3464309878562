"""The prefix cache against sets of numbered blocks, and runs worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from sim.prefix import Prefix, SegmentChain
from sim.prefix_cache import PrefixCache
from sim.schedulers import SCHEDULERS
from tests.cases import CountedMachine, cases
from tests.sim.pricing import (
    QUICK,
    Scenario,
    limits,
    outcome,
    requests,
    scenarios,
    serve,
)
from tests.sim.tape import fast_and_slow
from tests.sim.test_disaggregation import disaggregated
from tests.sim.test_fast_forward import assert_same, run

Tokens = tuple[object, ...]
PATHS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 7)), max_size=6)


def literal(path: list[tuple[int, int]]) -> Tokens:
    """The tokens of a path, spelled out: each names its segment and all before it."""
    spelled = (
        (tuple(path[: k + 1]), offset)
        for k, (_, length) in enumerate(path)
        for offset in range(length)
    )
    return tuple(spelled)


def prefix_of(chain: SegmentChain, path: list[tuple[int, int]]) -> Prefix:
    return chain.prefix([c for c, _ in path], [length for _, length in path])


@given(paths=st.lists(PATHS, min_size=2, max_size=5), size=st.integers(1, 6))
@QUICK
def test_keys_are_equal_exactly_where_all_tokens_are(
    paths: list[list[tuple[int, int]]], size: int
) -> None:
    """Of every two blocks, against the tokens up to their ends."""
    chain, seen = SegmentChain(), {}
    for path in paths:
        prefix, tokens = prefix_of(chain, path), literal(path)
        count = prefix.blocks(10**6, size)
        assert count == len(tokens) // size
        assert prefix.blocks(size, size) == min(1, count)
        keys = list(prefix.keys(0, count, size))
        assert keys == [prefix.key(block, size) for block in range(count)]
        assert list(prefix.keys(1, count, size)) == keys[1:]
        for block, key in enumerate(keys):
            upto = tokens[: (block + 1) * size]
            assert seen.setdefault(key, upto) == upto
    assert len(set(seen.values())) == len(seen)


@dataclass
class Block:
    """A numbered block that can be found: its tokens and all before, who holds it."""

    upto: Tokens
    holders: set[int]
    used: int = 0


class AgainstBlocks(CountedMachine):
    """Requests come, get on and leave; blocks are objects, looked at one by one."""

    @initialize(size=st.integers(1, 4), total=st.integers(3, 25))
    def start(self, size: int, total: int) -> None:
        self.size, self.total = size, total
        self.cache, self.chain = PrefixCache(size), SegmentChain()
        self.free = total
        self.clock = 0
        self.found: dict[Tokens, Block] = {}
        self.own: dict[int, int] = {}  # blocks that only the request itself knows
        self.running: dict[int, tuple[list[tuple[int, int]], int, int]] = {}
        self.prefixes: dict[int, Prefix] = {}
        self.number = 0

    def blocks(self, tokens: int) -> int:
        return -(-tokens // self.size)

    def held(self, request: int) -> list[Block]:
        return [b for b in self.found.values() if request in b.holders]

    def model_free(self) -> int:
        held = sum(bool(block.holders) for block in self.found.values())
        return self.total - held - sum(self.own.values())

    def model_trim(self) -> None:
        """Throw out who was used longest ago, of equals the one with most before it."""
        while len(self.found) + sum(self.own.values()) > self.total:
            idle = [b for b in self.found.values() if not b.holders]
            oldest = min(idle, key=lambda b: (b.used, -len(b.upto)))
            kept = [b.upto for b in self.found.values() if b is not oldest]
            longer = [u for u in kept if u[: len(oldest.upto)] == oldest.upto]
            assert not longer, "a block goes before one that builds on it"
            del self.found[oldest.upto]

    @rule(path=PATHS, extra=st.integers(1, 9))
    def admit(self, path: list[tuple[int, int]], extra: int) -> None:
        """A prompt of the path's tokens and ``extra`` that nobody else has."""
        prefix, tokens = prefix_of(self.chain, path), literal(path)
        prompt = max(1, len(tokens) + extra - 5)
        hit = 0
        most = min(len(tokens), prompt - 1) // self.size
        while hit < most and tokens[: (hit + 1) * self.size] in self.found:
            hit += 1
        assert self.cache.matched(prefix, prompt) == hit
        fresh = [
            u
            for u in (tokens[: (k + 1) * self.size] for k in range(hit))
            if not self.found[u].holders
        ]
        assert self.cache.unheld(prefix, hit, set()) == len(fresh)
        if self.blocks(prompt) - hit + len(fresh) > self.free:
            return
        request, self.number = self.number, self.number + 1
        self.free += self.cache.hold(request, prefix, hit)
        self.free -= self.blocks(prompt) - hit
        self.cache.trim(self.free)
        for k in range(hit):
            self.found[tokens[: (k + 1) * self.size]].holders.add(request)
        self.own[request] = self.blocks(prompt) - hit
        self.model_trim()
        self.running[request] = (path, prompt, hit * self.size)
        self.prefixes[request] = prefix

    def model_complete(self, request: int, upto: int) -> None:
        tokens = literal(self.running[request][0])
        for k in range(min(upto, len(tokens)) // self.size):
            key = tokens[: (k + 1) * self.size]
            block = self.found.setdefault(key, Block(key, set()))
            if request not in block.holders:
                block.holders.add(request)
                self.own[request] -= 1

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(1, 20))
    def complete(self, data: st.DataObject, tokens: int) -> None:
        """Some more of a prompt is through all layers."""
        request = data.draw(st.sampled_from(sorted(self.running)))
        path, stored, done = self.running[request]
        done = min(stored, done + tokens)
        self.free += self.cache.complete(request, self.prefixes[request], done)
        self.model_complete(request, done)
        self.running[request] = (path, stored, done)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def grow(self, data: st.DataObject) -> None:
        """A token is generated, if there is room for it."""
        request = data.draw(st.sampled_from(sorted(self.running)))
        path, stored, done = self.running[request]
        more = self.blocks(stored + 1) - self.blocks(stored)
        if done == stored and more <= self.free:
            self.free -= more
            self.cache.trim(self.free)
            self.own[request] += more
            self.model_trim()
            self.running[request] = (path, stored + 1, stored + 1)

    @precondition(lambda self: any(s == d for _, s, d in self.running.values()))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Several that decode go; what each frees is foretold."""
        done = [r for r, (_, stored, d) in self.running.items() if stored == d]
        order = data.draw(st.lists(st.sampled_from(done), unique=True, min_size=1))
        members = [(request, self.running[request][1]) for request in order]
        told = list(self.cache.leaving(members, self.prefixes.__getitem__))
        for (request, stored), freed in zip(members, told, strict=True):
            before = self.model_free()
            assert self.cache.leave(request, self.prefixes[request], stored) == freed
            self.free += freed
            self.model_complete(request, stored)
            self.clock += 1
            for block in self.held(request):
                block.holders.discard(request)
                block.used = self.clock
            del self.own[request], self.running[request]
            assert self.model_free() == before + freed

    @invariant()
    def as_many_and_the_same(self) -> None:
        """Nothing that somebody holds is ever gone, and nothing is counted twice."""
        if not hasattr(self, "cache"):
            return
        assert self.free == self.model_free()
        assert len(self.cache) == len(self.found) <= self.total
        for request, prefix in self.prefixes.items():
            if request in self.running:
                path, stored, _ = self.running[request]
                tokens, there = literal(path), 0
                while (there + 1) * self.size < min(stored, len(tokens) + 1) and tokens[
                    : (there + 1) * self.size
                ] in self.found:
                    there += 1
                assert self.cache.matched(prefix, stored) == there


AgainstBlocks.TestCase.settings = settings(cases(30), stateful_step_count=40)
TestPrefixCache = AgainstBlocks.TestCase


@st.composite
def sharing_scenarios(draw: st.DrawFn, *, max_replicas: int = 1) -> Scenario:
    """Random runs whose prompts begin alike, and whose outputs may be asked again."""
    case = draw(scenarios(max_replicas=max_replicas))
    chain, shared = SegmentChain(), []
    for request in case.requests:
        path, room = [], request.prompt_tokens + request.output_tokens
        for content, length in draw(PATHS):
            path.append((content, min(length, room)))
            room -= path[-1][1]
            if not room:
                break
        shared.append(replace(request, prefix=prefix_of(chain, path)))
    return replace(case, requests=tuple(shared), prefix_caching=True)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@QUICK
@given(case=sharing_scenarios(max_replicas=2), fewest=st.sampled_from([2, 6]))
def test_fast_forward_is_stepping(name: str, case: Scenario, fewest: int) -> None:
    """Bit for bit, under every law that is watched."""
    fast, slow, _ = fast_and_slow(partial(run, name, case, 0), fewest)
    assert_same(fast, slow)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@QUICK
@given(case=sharing_scenarios(), prefill=st.integers(1, 2), decode=st.integers(1, 2))
def test_caches_at_both_ends_of_a_transfer(
    name: str, case: Scenario, prefill: int, decode: int
) -> None:
    """Under every law; a prefill replica keeps prompts, a decode replica both."""
    case = replace(case, replicas=prefill + decode)
    fast = disaggregated(name, case, prefill)
    assert_same(fast, disaggregated(name, case, prefill, fast=False))


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@QUICK
@given(case=sharing_scenarios())
def test_all_blocks_come_back(name: str, case: Scenario) -> None:
    """And what is cached never exceeds them."""
    served = serve(name, case)
    (engine,) = served.engines
    assert engine.free_blocks == case.num_blocks
    assert engine.cache is not None
    assert len(engine.cache) <= case.num_blocks


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@QUICK
@given(case=sharing_scenarios())
def test_off_is_as_if_nothing_were_alike(name: str, case: Scenario) -> None:
    """So is a cache for requests that share nothing."""
    alone = tuple(replace(r, prefix=Prefix()) for r in case.requests)
    off = outcome(serve(name, replace(case, prefix_caching=False)))
    assert off == outcome(serve(name, replace(case, requests=alone)))


def alike(*rows: tuple[int, int, int], num_blocks: int = 60) -> Scenario:
    """Requests that all begin with the same 32 tokens, in blocks of 4."""
    chain = SegmentChain()
    shared = [replace(row, prefix=chain.prefix((0,), (32,))) for row in requests(*rows)]
    at = limits(block_size=4, max_num_batched_tokens=80, max_model_len=40)
    return Scenario(tuple(shared), at, num_blocks, scale=60, prefix_caching=True)


def entering(name: str, case: Scenario) -> list[tuple[int, ...]]:
    """(start of iteration, request, first token, tokens) of chunks at layer 0."""
    served = serve(name, case)
    return [
        (start, chunk.request_id, chunk.start, chunk.tokens)
        for (start, _), step in zip(served.spans_ns(), served.steps, strict=True)
        for chunk in step.plan.spans[0].prefill
    ]


def test_chunked_by_hand() -> None:
    """Chunks of 20; an iteration of n prompt tokens takes 100 + 4 n ns.

    Request 1 enters at 180, when 20 of the 32 tokens are through and the rest is on
    its way with it. At 360 all 32 are there, but it has begun. Later ones skip all
    whole blocks but the last token's.
    """
    case = alike((0, 32, 1), (100, 36, 1), (2000, 36, 1), (4000, 32, 1))
    case = replace(case, at=replace(case.at, max_num_batched_tokens=20, max_num_seqs=9))
    assert entering("chunked-prefill", case) == [
        (0, 0, 0, 20),
        (180, 0, 20, 12),
        (180, 1, 20, 8),
        (360, 1, 28, 8),
        (2000, 2, 32, 4),
        (4000, 3, 28, 4),
    ]


def test_layered_by_hand() -> None:
    """32 tokens in four groups of one layer, 132 ns each: all is there at 528.

    The 4 tokens left of request 1 are one group, of 116 ns.
    """
    case = alike((0, 32, 1), (200, 36, 1), (2000, 36, 1))
    assert entering("layered-prefill", case) == [
        (0, 0, 0, 32),
        (528, 1, 32, 4),
        (2000, 2, 32, 4),
    ]
    assert serve("layered-prefill", case).run.records[1].first_token_ns == 528 + 116


def test_nothing_is_there_before_the_last_group() -> None:
    """Hybrid prefill: request 1 passes through the lane beside the last of 4 groups."""
    case = replace(alike((0, 32, 1), (300, 36, 1), (2000, 36, 1)), lane_tokens=36)
    assert entering("hybrid-prefill", case) == [
        (0, 0, 0, 32),
        (396, 1, 0, 36),
        (2000, 2, 32, 4),
    ]


def test_equal_blocks_exist_once() -> None:
    """Both of a batch compute all; then 8 blocks are shared and 1 + 2 are not."""
    served = serve("orca", alike((0, 32, 3), (0, 36, 3)))
    assert list(served.run.logs[0].used_blocks) == [8 + 9, 8 + 3, 8 + 3]


def test_the_end_of_a_prefix_goes_first() -> None:
    """10 blocks: 8 are cached, and 5 of another prompt push the last 3 out."""
    case = alike((0, 32, 1), (1000, 20, 1), (2000, 36, 1), num_blocks=10)
    first, other, again = case.requests
    other = replace(other, prefix=Prefix())
    case = replace(case, requests=(first, other, again))
    assert entering("orca", case) == [
        (0, 0, 0, 32),
        (1000, 1, 0, 20),
        (2000, 2, 20, 16),
    ]


def test_a_preempted_request_finds_what_it_left() -> None:
    """10 blocks: request 0 takes 8 and computes them; request 1 finds 7 of them.

    It computes the last one too and gives it back, so that they hold 8 + 1 + 1. When
    request 0 has 36 tokens it needs one more and none is left: request 1 goes. It
    comes back with its 32 + 4 tokens, finds 32, and needs a block until which request 0
    must have left. What it found when it first came is what counts.
    """
    case = alike((0, 32, 8), (0, 32, 8), num_blocks=10)
    case = replace(case, at=replace(case.at, max_num_batched_tokens=32))
    assert [chunk[1:] for chunk in entering("orca", case)] == [
        (0, 0, 32),
        (1, 28, 4),
        (1, 32, 4),
    ]
    first, second = serve("orca", case).run.records
    assert (first.preemptions, second.preemptions) == (0, 1)
    assert (first.cached_tokens, second.cached_tokens) == (0, 28)
