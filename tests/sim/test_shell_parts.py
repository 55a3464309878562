"""Parts of the shell on their own: the pool's counts, ties of the clock, links."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sim.prefix import NOTHING_SHARED, Prefix
from sim.request import Request, RequestRecord
from sim.routers import Loads
from sim.shell.clock import Clock, Kind, Process
from sim.shell.pool import Pool
from sim.shell.transfers import Transfers
from tests.sim.test_disaggregation import LINKS


@dataclass
class Script:
    """A router that answers as told and writes down what it is shown."""

    answers: list[int]
    shown: list[Loads] = field(default_factory=list)

    def route(self, loads: Loads) -> int:
        counts = {"requests": list(loads.requests), "tokens": list(loads.tokens)}
        self.shown.append(replace(loads, **counts))  # as they are now
        return self.answers.pop(0)


def record(
    request_id: int, prompt: int, prefix: Prefix = NOTHING_SHARED
) -> RequestRecord:
    request = Request(
        id=request_id,
        arrival_ns=0,
        prompt_tokens=prompt,
        output_tokens=1,
        prefix=prefix,
    )
    return RequestRecord(request=request, arrival_ns=0, runs=[])


def test_a_pool_counts_what_it_sent_by_hand() -> None:
    """Replicas 3, 4 and 5 of a cluster are positions 0, 1 and 2 of their router."""
    router = Script([1, 1, 0, 2])
    pool = Pool(router, range(3, 6))
    talk = Prefix((7, 8), (20, 60))  # the second segment is to come: an answer
    first, second = record(0, 30, talk), record(1, 50)
    assert [pool.enter(first), pool.enter(second)] == [4, 4]
    assert [pool.outstanding(replica) for replica in (3, 4, 5)] == [0, 2, 0]
    pool.set_open([5, 3])
    assert pool.is_open
    assert pool.enter(record(2, 10)) == 3
    pool.leave(4, first)
    pool.set_open([3, 4, 5])
    assert pool.enter(record(3, 10)) == 5
    assert pool.total == 3
    assert router.shown == [
        Loads([0, 0, 0], [0, 0, 0], Prefix((7,), (20,)), 30, None),
        Loads([0, 1, 0], [0, 30, 0], Prefix(), 50, None),
        Loads([0, 2, 0], [0, 80, 0], Prefix(), 10, [0, 2]),
        Loads([1, 1, 0], [10, 50, 0], Prefix(), 10, None),
    ]
    pool.set_open([])
    assert not pool.is_open


def test_equal_times_are_ordered_by_kind_and_replica() -> None:
    """Whatever was scheduled first; whoever names no replica goes as replica 0."""
    clock, order = Clock(), list[str]()

    def wait(name: str, kind: Kind, *replica: int) -> Process:
        yield clock.after(5, kind, *replica)
        order.append(name)

    for process in (
        wait("plan", Kind.PLAN),
        wait("fleet 1", Kind.FLEET, 1),
        wait("fleet", Kind.FLEET),
        wait("end 2", Kind.ITERATION_END, 2),
        wait("end 1", Kind.ITERATION_END, 1),
        wait("arrival", Kind.ARRIVAL, 9),
    ):
        clock.process(process)
    clock.run()
    assert order == ["arrival", "end 1", "end 2", "fleet", "fleet 1", "plan"]


def test_links_carry_one_cache_at_a_time() -> None:
    """50 ns + 1 per token; the second waits for the first, the third for none."""
    links = Transfers(Clock(), LINKS, 4)
    assert links.reserve(0, 1, 100) == (0, 150)
    assert links.reserve(1, 0, 10) == (150, 210)
    assert links.reserve(2, 3, 10) == (0, 60)
