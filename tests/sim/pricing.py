"""A price list that fits in one line, and builders of engines, clusters, workloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from sim.engine import Engine
from sim.metrics import token_times_ns
from sim.plan import StepPlan
from sim.queues import QUEUES, WaitingQueue
from sim.queues.ahead import ScheduledAhead
from sim.request import Request, RequestRecord
from sim.routers import ROUTERS
from sim.schedulers import SCHEDULERS, SchedulerOptions
from sim.schedulers.dynamic_chunked import DynamicChunkedPrefill
from sim.schedulers.hybrid import HybridPrefill
from sim.schedulers.layered_prefill import LayeredPrefill
from sim.schedulers.pace import Pace
from sim.shell.cluster import Cluster, ClusterRun
from sim.step import StepCost
from sim.view import EngineLimits, QueuedRequest, Scheduler, SchedulerView
from tests.cases import cases

QUICK = cases(8)
STALL_FREE_CHUNKERS = (
    "adaptive-layered-prefill",
    "chunked-prefill",
    "dynamic-chunked-prefill",
    "hybrid-prefill",
    "layered-prefill",
    "multiplexed-prefill",
)
NO_TARGET = Pace()
CHARGE_DECODES = ("chunked-prefill", "dynamic-chunked-prefill")


def step_cost(duration_ns: int, **parts: float) -> StepCost:
    """A cost of which only the named parts are not zero."""
    zeros = dict.fromkeys(StepCost._fields, 0)
    return StepCost(**{**zeros, "duration_ns": duration_ns, **parts})  # type: ignore[arg-type]


@dataclass(frozen=True)
class LinearPricer:
    """Iteration time, linear in what it runs; integers only.

    Attributes:
        base_ns: Per iteration.
        row_ns: Per decoding request.
        context_ns: Per KV token the decode batch attends to.
        token_layer_ns: Per prompt token and layer.
    """

    base_ns: int = 100
    row_ns: int = 10
    context_ns: int = 0
    token_layer_ns: int = 1

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        rows = decoding if plan.spans[0].decode else 0
        work = sum(s.layers * c.tokens for s in plan.spans for c in s.prefill)
        return step_cost(
            self.base_ns
            + self.row_ns * rows
            + self.context_ns * context_tokens
            + self.token_layer_ns * work
        )


def one_by_one(max_model_len: int) -> EngineLimits:
    """One layer; one request, one token and one token a block at a time."""
    return limits(
        num_layers=1,
        max_num_batched_tokens=1,
        max_num_seqs=1,
        max_model_len=max_model_len,
        block_size=1,
    )


def limits(**changes: int) -> EngineLimits:
    """Roomy limits of a model with 4 layers, with some of them changed."""
    base = EngineLimits(
        num_layers=4,
        max_num_batched_tokens=8192,
        max_num_seqs=256,
        max_model_len=16384,
        block_size=16,
    )
    return replace(base, **changes)


def scheduler(
    name: str,
    at: EngineLimits,
    groups: int = 16,
    rule: str = "code",
    scale: int = 1,
    pace: Pace = NO_TARGET,
) -> Scheduler:
    """A registered scheduler; ``scale`` makes short prompts count as long ones.

    It multiplies the tokens the layer-group rule sees, so that small random cases are
    spread over groups too; a lane and tiles of so many tokens shrink instead.
    """
    options = SchedulerOptions(
        limits=at, num_layer_groups=groups, layer_group_rule=rule, pace=pace
    )
    made = SCHEDULERS[name](options)
    if scale > 1 and isinstance(made, LayeredPrefill | HybridPrefill):
        counted = made.group_rule
        made = replace(made, group_rule=lambda n, cap: counted(n * scale, cap))
    if scale > 1 and isinstance(made, HybridPrefill):
        made = replace(made, lane_tokens=made.lane_tokens // scale)
    if scale > 1 and isinstance(made, DynamicChunkedPrefill):
        made = replace(made, tile_tokens=max(1, made.tile_tokens // scale))
    return made


def scheduler_of(name: str, scenario: Scenario) -> Scheduler:
    """The policy of a scenario."""
    s = scenario
    pace = Pace(s.target_ns, s.pricer)
    made = scheduler(name, s.at, s.groups, s.rule, s.scale, pace)
    if s.lane_tokens is not None and isinstance(made, HybridPrefill):
        return replace(made, lane_tokens=s.lane_tokens)
    return made


@dataclass(frozen=True)
class Planned:
    """One plan and the queues it was made from, copied."""

    plan: StepPlan
    waiting: tuple[QueuedRequest, ...]
    prefilling: tuple[tuple[int, int, int], ...]  # id, tokens, layers done
    decoding: tuple[tuple[int, int], ...]  # id, KV tokens stored; newest first
    free_blocks: int

    @property
    def chunks(self) -> dict[int, int]:
        """Prompt tokens by request."""
        return {c.request_id: c.tokens for s in self.plan.spans for c in s.prefill}

    @property
    def entering(self) -> int:
        """Prompt tokens that start at layer 0."""
        return sum(c.tokens for c in self.plan.spans[0].prefill)

    @property
    def prefill_layers(self) -> tuple[int, int] | None:
        """First and last layer of the span that prefills, if any."""
        busy = [(s.first, s.last) for s in self.plan.spans if s.prefill]
        return busy[0] if busy else None


class Recorder:
    """A scheduler that writes down what it was shown and what it answered."""

    def __init__(self, inner: Scheduler) -> None:
        self._inner = inner
        self.steps: list[Planned] = []

    @property
    def steady(self) -> bool:
        return self._inner.steady

    @property
    def stall_free(self) -> bool:
        return self._inner.stall_free

    @property
    def work_conserving(self) -> bool:
        return self._inner.work_conserving

    def plan(self, view: SchedulerView) -> StepPlan:
        plan = self._inner.plan(view)
        self.steps.append(
            Planned(
                plan,
                tuple(view.waiting),
                tuple((s.id, s.tokens, s.layers_done) for s in view.prefilling),
                tuple(view.newest_decoding()),
                view.free_blocks,
            )
        )
        return plan

    def reject_reason(self, prompt_tokens: int) -> str | None:
        return self._inner.reject_reason(prompt_tokens)


@dataclass(frozen=True)
class Scenario:
    """A workload and the replicas that serve it."""

    requests: tuple[Request, ...]
    at: EngineLimits
    num_blocks: int = 100_000
    groups: int = 16
    rule: str = "code"
    scale: int = 1
    replicas: int = 1
    router: str = "least-outstanding-requests"
    max_concurrency: int | None = None
    pricer: LinearPricer = LinearPricer()
    target_ns: int | None = None
    queue: str = "fcfs"
    lane_tokens: int | None = None  # of hybrid prefill; None: the usual, by scale
    prefix_caching: bool = False
    ahead: bool = False

    def waiting(self) -> WaitingQueue:
        """An empty queue."""
        queue = QUEUES[self.queue]()
        return ScheduledAhead(queue) if self.ahead else queue


@dataclass(frozen=True)
class Served:
    """A finished run with its engines and plans."""

    run: ClusterRun
    engines: tuple[Engine, ...]
    recorders: tuple[Recorder, ...]

    @property
    def steps(self) -> list[Planned]:
        """Plans of the first replica."""
        return self.recorders[0].steps

    def spans_ns(self, replica: int = 0) -> list[tuple[int, int]]:
        """(start, end) of each iteration of a replica."""
        log = self.run.logs[replica]
        return list(zip(log.start_ns, log.end_ns, strict=True))

    @property
    def tokens(self) -> list[list[int]]:
        """Token times of each request."""
        return [self.tokens_ns(record) for record in self.run.records]

    def tokens_ns(self, record: RequestRecord) -> list[int]:
        """When each token of a request left."""
        ends = np.asarray(self.run.logs[record.replica].decode_end_ns, dtype=np.int64)
        return [int(t) for t in token_times_ns(record, ends)]


def requests(*rows: tuple[int, int, int]) -> tuple[Request, ...]:
    """Requests of (arrival ns, prompt tokens, output tokens)."""
    return tuple(
        Request(id=i, arrival_ns=a, prompt_tokens=p, output_tokens=o)
        for i, (a, p, o) in enumerate(rows)
    )


def serve(name: str, scenario: Scenario) -> Served:
    """Run a scenario under a registered scheduler, from first to last token."""
    recorders = tuple(
        Recorder(scheduler_of(name, scenario)) for _ in range(scenario.replicas)
    )
    engines = tuple(
        Engine(
            r,
            scenario.at,
            scenario.num_blocks,
            scenario.waiting(),
            prefix_caching=scenario.prefix_caching,
        )
        for r in recorders
    )
    cluster = Cluster(
        engines, scenario.pricer, ROUTERS[scenario.router](), scenario.max_concurrency
    )
    return Served(cluster.run(scenario.requests), engines, recorders)


_GAPS_NS = st.one_of(st.just(0), st.integers(0, 400), st.integers(0, 20_000))


@st.composite
def scenarios(
    draw: st.DrawFn,
    *,
    max_replicas: int = 1,
    closed_loop: bool = False,
    ahead: bool = False,
) -> Scenario:
    """Small hostile scenarios: bursts, tiny KV pools, one-token prompts and outputs.

    With ``ahead``, of engines that schedule ahead, too.

    The KV pool holds at least one request of ``max_model_len``, as any configuration
    must; prompts may be too long to be served.
    """
    block_size = draw(st.integers(1, 6))
    max_model_len = draw(st.integers(2, 40) | st.integers(12, 24))
    at = EngineLimits(
        num_layers=draw(st.integers(1, 7)),
        max_num_batched_tokens=draw(st.integers(1, 48) | st.integers(20, 80)),
        max_num_seqs=draw(st.integers(1, 8) | st.integers(5, 8)),
        max_model_len=max_model_len,
        block_size=block_size,
    )
    lengths = st.tuples(
        _GAPS_NS, st.integers(1, max_model_len + 1), st.integers(1, max_model_len)
    )
    now, rows = 0, []
    size = draw(st.integers(1, 14))
    for gap, prompt, output in draw(st.lists(lengths, min_size=size, max_size=size)):
        now += gap
        rows.append((now, prompt, output))
    slots = st.integers(1, 6) if closed_loop else st.none()
    return Scenario(
        requests=requests(*rows),
        at=at,
        num_blocks=at.blocks(max_model_len) + draw(st.integers(0, 5)),
        groups=draw(st.sampled_from((1, 2, 3, 4, 12, 16, 24))),
        rule=draw(st.sampled_from(("code", "paper"))),
        scale=draw(st.sampled_from((1, 60, 200))),
        replicas=draw(st.integers(1, max_replicas)),
        router=draw(st.sampled_from(sorted(ROUTERS))),
        max_concurrency=draw(slots),
        target_ns=draw(st.none() | st.integers(1, 2000)),
        pricer=LinearPricer(
            base_ns=draw(st.integers(1, 200)),
            row_ns=draw(st.integers(0, 30)),
            context_ns=draw(st.integers(0, 3)),
            token_layer_ns=draw(st.integers(0, 9)),
        ),
        ahead=ahead and draw(st.booleans()),
    )


def outcome(served: Served) -> Sequence[tuple[int, list[int], int, str | None]]:
    """(replica, token times, preemptions, rejection) of each request."""
    return [
        (r.replica, served.tokens_ns(r), r.preemptions, r.rejected)
        for r in served.run.records
    ]
