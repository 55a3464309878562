"""What a cluster is given beside a workload: prices, watchers, callbacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from sim.engine import Engine
from sim.errors import ConfigError, SimulationError
from sim.events import Arrived, IterationsEnded
from sim.handover import Disaggregation
from sim.kv_stream import LAYER_WISE, WHOLE
from sim.plan import LayerSpan, StepPlan
from sim.routers import ROUTERS
from sim.scaling import Scaling
from sim.shell.cluster import Cluster, ClusterRun, Disaggregated
from sim.step import DecodeCosts, StepCost
from sim.swapping import SwappingEngine
from sim.view import SchedulerView
from tests.sim.pricing import (
    LinearPricer,
    Scenario,
    limits,
    requests,
    scheduler,
    scheduler_of,
    serve,
)
from tests.sim.swapping import PAIR, engines_of
from tests.sim.tape import Tape
from tests.sim.test_disaggregation import LINKS
from tests.sim.test_fast_forward import ManyPricer, assert_same
from tests.sim.test_outages import outages

unwatched = Cluster.run  # as it is before the suite has every run checked
WORK = requests((0, 100, 30), (0, 10, 12), (40, 9999, 1), (50, 20, 1), (2000, 50, 3))
AT = limits(max_model_len=200)
TWO = Scenario(WORK, AT, replicas=2)


def plain() -> Cluster:
    """Two replicas of their own behind a router."""
    engines = [Engine(scheduler_of("orca", TWO), AT, 100) for _ in range(2)]
    return Cluster(engines, ManyPricer(), ROUTERS["round-robin"]())


def split(kv_transfer: str) -> Cluster:
    """One for prefill, one for decode, with one sequence each, so that it stalls."""
    case = Scenario(WORK, limits(max_model_len=200, max_num_seqs=1))
    engines = [
        Engine(scheduler_of("orca", case), case.at, 9, hands_over=prefill)
        for prefill in (True, False)
    ]
    pools = Disaggregation(1, LINKS, kv_transfer)
    router = ROUTERS["round-robin"]
    return Cluster(
        engines, ManyPricer(), router(), split=Disaggregated(pools, router())
    )


def failing() -> Cluster:
    """Both fail at once: a run of decodes, a prompt, and all wait at the client."""
    made = plain()
    fail = ((0, "failure", 900, 1500), (1, "failure", 900, 1400))
    made.suffer(outages(2, *fail, (0, "drain", 1900, 1950)))
    return made


def scaled() -> Cluster:
    made = plain()
    made.scale(Scaling(1, 1, startup_ns=30, scale_down_delay_ns=10))
    return made


KINDS: dict[str, Callable[[], Cluster]] = {
    "plain": plain,
    "whole caches": lambda: split(WHOLE),
    "streams": lambda: split(LAYER_WISE),
    "failures": failing,
    "scaled": scaled,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_nobody_watches_is_the_same(kind: str) -> None:
    """Every other run of the suite has an observer; those of users have none."""
    tape = Tape()
    watched = KINDS[kind]().run(WORK, observer=tape)
    alone = unwatched(KINDS[kind](), WORK)
    assert_same(alone, watched)
    assert (alone.fleet, alone.streams) == (watched.fleet, watched.streams)
    assert len(tape.of(Arrived)) == len(WORK)


def test_a_swapping_run_that_nobody_watches_is_the_same() -> None:
    runs: list[ClusterRun] = []
    for run in (unwatched, Cluster.run):
        router = ROUTERS["round-robin"]()
        made = Cluster(engines_of("orca", PAIR, 10), LinearPricer(), router)
        runs.append(run(made, PAIR.requests))
    assert isinstance(made._replicas[0].engine, SwappingEngine)
    assert_same(*runs)


def test_each_request_is_counted_once_when_it_is_done() -> None:
    """Rejected ones too, of which there is one."""
    done: list[int] = []
    run = plain().run(WORK, on_done=lambda: done.append(1))
    assert len(done) == len(WORK)
    assert [r.rejected is not None for r in run.records].count(True) == 1


def test_replicas_may_have_prices_of_their_own() -> None:
    """100 + 4 x 10 ns on the first replica, 300 + 4 x 10 on the second."""
    engines = [Engine(scheduler("orca", AT), AT, 100) for _ in range(2)]
    prices = [LinearPricer(), LinearPricer(base_ns=300)]
    router = ROUTERS["round-robin"]()
    run = Cluster(engines, prices, router).run(requests((0, 10, 1), (0, 10, 1)))
    assert [r.finish_ns for r in run.records] == [140, 340]
    with pytest.raises(ValueError, match="shorter"):
        Cluster(engines, prices[:1], router)


@dataclass(frozen=True)
class Clocked(LinearPricer):
    """Remembers what time it is told."""

    told: list[int] = field(default_factory=list)

    def begin(self, start_ns: int) -> None:
        self.told.append(start_ns)


def test_a_pricer_with_a_clock_is_told_every_start() -> None:
    pricer = Clocked()
    work = requests((0, 10, 3), (1000, 10, 2))
    serve("orca", Scenario(work, AT, pricer=pricer))
    assert pricer.told == [0, 140, 250, 1000, 1140]


@dataclass(frozen=True)
class Asked(LinearPricer):
    """Counts what it is asked."""

    one: list[int] = field(default_factory=list)
    many: list[int] = field(default_factory=list)

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        self.one.append(decoding)
        return super().price(plan, decoding, context_tokens)

    def price_decodes(
        self, decoding: int, context_tokens: int, steps: int
    ) -> DecodeCosts:
        self.many.append(steps)
        free = ManyPricer(self.base_ns, self.row_ns)
        return free.price_decodes(decoding, context_tokens, steps)


@pytest.mark.parametrize(
    ("queue", "waiting", "fast", "one", "many"),
    [
        ("fcfs", 0, None, 1, [100]),
        ("fcfs", 0, True, 1, [100]),
        ("fcfs", 0, False, 101, []),
        ("fcfs", 1, True, 2, [100, 100]),  # waits for the only slot meanwhile
        ("vtc", 0, True, 1, [100]),
        ("vtc", 1, True, 102, [100]),  # decoding moves this queue: step by step
    ],
)
def test_runs_of_decodes_are_asked_for_at_once(
    queue: str, waiting: int, fast: bool | None, one: int, many: list[int]
) -> None:
    """101 tokens are a prompt and 100 decodes, whose price is one question."""
    work = requests(*[(0, 10, 101)] * (1 + waiting))
    case = Scenario(work, limits(max_num_seqs=1), queue=queue)
    engine = Engine(scheduler_of("orca", case), case.at, 100, case.waiting())
    asked = Asked()
    options = {} if fast is None else {"fast_forward": fast}
    run = Cluster([engine], asked, ROUTERS["round-robin"](), **options).run(work)
    assert (len(asked.one), asked.many) == (one, many)
    assert [r.finish_ns for r in run.records] == [
        (k + 1) * (140 + 100 * 110) for k in range(1 + waiting)
    ]


def test_an_arrival_comes_before_an_iteration_that_ends_then() -> None:
    """A run of 11 decodes ends at 500 + 11 x 110 = 1710; one arrives there and then.

    Request 0 is still in progress for the router, request 1 on the other replica is
    not, so that the new one goes to that. It is known from 600 on that it will come,
    later than the end of the run.
    """
    work = requests((0, 100, 12), (600, 8, 1), (1710, 8, 1))
    case = Scenario(work, AT, replicas=2)
    engines = [Engine(scheduler_of("orca", case), AT, 100) for _ in range(2)]
    tape = Tape()
    router = ROUTERS["least-outstanding-requests"]()
    run = Cluster(engines, ManyPricer(), router).run(work, observer=tape)
    assert [r.replica for r in run.records] == [0, 1, 1]
    then = [type(e) for e in tape.of(Arrived, IterationsEnded) if e.time_ns == 1710]  # type: ignore[attr-defined]
    assert then == [Arrived, IterationsEnded]


class Broken:
    """Decodes in no layer, from its second plan on."""

    steady = stall_free = work_conserving = False

    def __init__(self) -> None:
        self._good = scheduler("orca", AT)
        self._plans = 0

    def plan(self, view: SchedulerView) -> StepPlan:
        self._plans += 1
        return (
            self._good.plan(view) if self._plans == 1 else StepPlan((LayerSpan(0, 1),))
        )

    def reject_reason(self, prompt_tokens: int) -> str | None:
        return None


def test_an_error_says_when_it_was_found() -> None:
    made = Cluster(
        [Engine(Broken(), AT, 100)], LinearPricer(), ROUTERS["round-robin"]()
    )
    with pytest.raises(SimulationError, match=r"cover 1 of 4 layers \(at 140 ns\)$"):
        made.run(requests((0, 10, 3)))


def test_more_time_than_64_bits_hold_is_refused_in_one_line() -> None:
    pricer = LinearPricer(base_ns=1 << 62)
    made = Cluster(
        [Engine(scheduler("orca", AT), AT, 100)], pricer, ROUTERS["round-robin"]()
    )
    message = (
        r"^the run would pass 2\*\*63 ns \(292 years\) of simulated time: the load"
        " is too large, or the machine is scaled too low$"
    )
    with pytest.raises(ConfigError, match=message):
        made.run(requests((0, 10, 3)))
