"""KV caches that move while they are computed: ties, pauses, what is known before."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from sim.engine import Engine
from sim.events import IterationsEnded
from sim.handover import Disaggregation
from sim.kv_stream import CHUNK_WISE, LAYER_WISE
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.prefix import Prefix
from sim.routers import ROUTERS
from sim.shell.cluster import Cluster, Disaggregated
from sim.transfer_events import Offered
from sim.view import SchedulerView
from tests.sim.pricing import (
    LinearPricer,
    Scenario,
    limits,
    one_by_one,
    requests,
    scheduler_of,
)
from tests.sim.tape import Tape, fast_and_slow
from tests.sim.test_disaggregation import disaggregated, tokens_of
from tests.sim.test_fast_forward import ManyPricer
from tests.sim.test_kv_streams import LINKS, parts_of


class TurnAndTurn:
    """Half of one prompt, half of the other, and again; 40 tokens each time."""

    steady = stall_free = work_conserving = False

    def __init__(self) -> None:
        turns = ((0, 0), (1, 0), (0, 40), (1, 40))
        self._turns = iter([PrefillChunk(k, start, 40) for k, start in turns])

    def plan(self, view: SchedulerView) -> StepPlan:
        return StepPlan((LayerSpan(0, 4, (next(self._turns),)),))

    def reject_reason(self, prompt_tokens: int) -> str | None:
        return None


def test_a_stream_waits_while_its_prompt_does_by_hand() -> None:
    """Iterations of 260 ns; half a cache takes 8 + 40. From 308 to 520 nobody knows
    when there will be more of the first.

    The first decodes from 828 on for 110; the second, here at 1088, decodes alone.
    """
    case = Scenario(requests((0, 80, 2), (0, 80, 2)), limits())
    ahead = Engine(TurnAndTurn(), case.at, 100, hands_over=True)
    behind = Engine(scheduler_of("orca", case), case.at, 100)
    pools, router = Disaggregation(1, LINKS, CHUNK_WISE), ROUTERS["round-robin"]
    split, tape = Disaggregated(pools, router()), Tape()
    cluster = Cluster([ahead, behind], ManyPricer(), router(), split=split)
    run = cluster.run(case.requests, observer=tape)
    begins = (260, 520, 780, 1040)
    assert parts_of(tape) == [(t, t + 48, 160) for t in begins]
    assert tokens_of(run) == [[780, 828 + 110], [1040, 1088 + 110]]


def test_parts_of_the_same_time_go_by_replica() -> None:
    """Prompts of replicas 0 and 1 end at 500; that of 1 has been on its way longer.

    Request 0 ends at 104 with its first token, so that 2 runs from 140 to 100 + 4 x 65
    later on replica 0. Its cache takes 8 + 65 ns, that of 1 then 8 + 100. Decodes are
    100 + 10 each: one at 573, which ends at 683, then one of both, for 1 has come.
    """
    work = requests((0, 1, 1), (0, 100, 2), (140, 65, 2))
    case = Scenario(work, limits(), replicas=3, router="round-robin")
    tape = Tape()
    run = disaggregated("orca", case, 2, links=LINKS, tape=tape, kv_transfer=CHUNK_WISE)
    assert parts_of(tape) == [(500, 573, 260), (573, 681, 400)]
    assert tokens_of(run) == [[104], [500, 683 + 110], [500, 683]]


def test_what_a_prefix_cache_holds_is_sent_at_once_by_hand() -> None:
    """16 of 20 tokens are known at 5000: 8 + 16 ns; the other 4 take 116 ns.

    Of those a layer is there every 29 ns, one token's worth of link: 9 ns. Exposed are
    the last layers of both: 8 + 20 / 4 ns of request 0, and 9.
    """
    alike = Prefix((1,), (20,))
    work = requests((0, 20, 2), (5000, 20, 2))
    work = tuple(replace(request, prefix=alike) for request in work)
    case = Scenario(work, limits(block_size=4), replicas=2, prefix_caching=True)
    tape = Tape()
    run = disaggregated("orca", case, links=LINKS, tape=tape, kv_transfer=LAYER_WISE)
    leave = [5029, 5058, 5087, 5116]
    expected = [(5000, 5024, 64), *((t, t + 9, 4) for t in leave)]
    assert parts_of(tape)[-5:] == expected
    assert run.records[1].cached_tokens == 16
    assert run.streams is not None
    assert run.streams.exposed_ns == 8 + 5 + 9


def test_logs_without_details_keep_no_rows() -> None:
    """Of prefill replicas neither; their sums stay."""
    case = Scenario(requests((0, 100, 3)), limits(), replicas=2)
    logs = [
        disaggregated(
            "orca", case, links=LINKS, kv_transfer=LAYER_WISE, detailed=detailed
        ).logs
        for detailed in (True, False)
    ]
    assert [[len(log.start_ns) for log in pair] for pair in logs] == [[1, 2], [0, 0]]
    assert [log.totals for log in logs[0]] == [log.totals for log in logs[1]]


def test_an_end_inside_a_run_comes_before_a_last_one_elsewhere_and_an_offer() -> None:
    """All in one nanosecond, iterations of 1 ns and caches that take as long.

    Replica 1 is between tokens of request 0 when request 1 gets its last on replica 2,
    and a prefill begins on replica 0.
    """
    at = one_by_one(5)
    work = requests((0, 1, 4), (0, 1, 2), (0, 1, 1), (0, 1, 2), (0, 1, 1))
    case = Scenario(
        work,
        at,
        num_blocks=5,
        replicas=3,
        pricer=LinearPricer(base_ns=1, row_ns=0, context_ns=0, token_layer_ns=0),
    )
    links = replace(LINKS, latency_ns=0)
    _, _, tape = fast_and_slow(
        partial(disaggregated, "static", case, links=links, kv_transfer=CHUNK_WISE)
    )
    kinds = tape.of(IterationsEnded, Offered)
    told = [(type(e), e.replica) for e in kinds if e.time_ns == 4]  # type: ignore[union-attr]
    ended = IterationsEnded
    assert told == [(ended, 0), (ended, 1), (ended, 2), (Offered, 0)]
