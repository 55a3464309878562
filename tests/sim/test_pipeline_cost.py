"""The price of a round: against one stage of all layers, and by hand."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.hardware import gpu
from calibration.links import P2P_LATENCY_NS, pipeline_links
from calibration.models import model
from sim.kernel_times import Timed
from sim.micro_batches import micro_batches
from sim.pipeline_cost import Pipeline, PipelineCostModel
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.stages import pipeline_stages
from sim.step_cost import StepCostModel
from tests.sim.literal_cost import Kernels, Routing, padded
from tests.sim.pricing import QUICK
from tests.sim.test_step_cost import HOST, POWER, work

WINDOWS = (0, 16, 0, 16, 0, 0, 16)
AMOUNTS = (
    "expert_weight_bytes",
    "other_weight_bytes",
    "kv_bytes",
    "activation_bytes",
    "link_bytes",
    "flops",
)
BUDGET = 60


@dataclass(frozen=True)
class Links:
    """A send takes a nanosecond per row and a constant."""

    base_ns: int = 0
    row_ns: int = 0

    def send_ns(self, stage: int, rows: int) -> int:
        return self.base_ns + self.row_ns * rows

    def send_bytes(self, rows: int) -> int:
        return self.row_ns * rows


INGREDIENTS = {
    "kernels": Kernels(),
    "coverage": Routing(),
    "work": work(WINDOWS, leading=2),
    "host": HOST,
    "padded": padded,
    "power": POWER,
}
WHOLE = StepCostModel(**INGREDIENTS)  # type: ignore[arg-type]


def model_of(stages: int, in_flight: int, links: Links = Links()) -> PipelineCostModel:
    pipeline = Pipeline(
        stages=pipeline_stages(len(WINDOWS), stages),
        links=links,
        micro_batches=in_flight,
        budget=BUDGET,
    )
    return PipelineCostModel(pipeline=pipeline, **INGREDIENTS)  # type: ignore[arg-type]


@st.composite
def batches(draw: st.DrawFn) -> tuple[StepPlan, int, int]:
    """Decodes, and prompts in all layers or in a group of them."""
    decoding = draw(st.integers(0, 9))
    tokens = draw(st.lists(st.integers(1, 50), min_size=not decoding, max_size=3))
    chunks = tuple(PrefillChunk(i, 7 * i, n) for i, n in enumerate(tokens))
    layers = len(WINDOWS)
    first = draw(st.integers(0, layers - 1))
    last = draw(st.integers(first + 1, layers))
    bounds = sorted({0, first, last, layers})
    spans = tuple(
        LayerSpan(a, b, chunks if (a, b) == (first, last) else ())
        for a, b in pairwise(bounds)
    )
    return StepPlan(spans), decoding, decoding * draw(st.integers(1, 40))


@QUICK
@given(batches(), st.integers(1, 7))
def test_one_micro_batch_takes_the_sum_of_the_stages(
    batch: tuple[StepPlan, int, int], stages: int
) -> None:
    """All that one stage of all layers takes and moves, to the nanosecond and byte.

    The GPUs of the other stages wait meanwhile: of S stages one is busy.
    """
    cost, whole = model_of(stages, 1).price(*batch), WHOLE.price(*batch)
    assert cost.duration_ns == whole.duration_ns
    for name in AMOUNTS:
        assert getattr(cost, name) == getattr(whole, name)
    busy = (whole.duration_ns - whole.wait_ns) // stages
    assert cost.wait_ns == whole.duration_ns - busy
    assert cost.extrapolated_ns == whole.extrapolated_ns // stages


@QUICK
@given(batches(), st.integers(2, 4), st.integers(1, 4))
def test_micro_batches_move_what_they_would_alone(
    batch: tuple[StepPlan, int, int], stages: int, in_flight: int
) -> None:
    """Weights are read once per micro-batch; nothing is faster than the slowest part.

    Nor slower than one after the other. Busy and waiting stages fill the round.
    """
    cost = model_of(stages, in_flight).price(*batch)
    parts = micro_batches(*batch, most=in_flight, budget=BUDGET)
    alone = [
        WHOLE.price(StepPlan(p.spans), p.decoding, p.context_tokens) for p in parts
    ]
    for name in AMOUNTS:
        assert getattr(cost, name) == sum(getattr(one, name) for one in alone)
    durations = [one.duration_ns for one in alone]
    assert max(durations) <= cost.duration_ns <= sum(durations)
    busy = sum(one.duration_ns - one.wait_ns for one in alone)
    assert cost.wait_ns == cost.duration_ns - busy // stages
    assert 0 <= cost.wait_ns <= cost.duration_ns


def test_a_round_of_decodes_by_hand() -> None:
    """Two stages of equal times but for the head; two micro-batches of 4 requests.

    Each takes its stages and its host time before it begins again, which is more than
    either stage's work.
    """
    decodes = StepPlan((LayerSpan(0, len(WINDOWS)),))
    links = Links(base_ns=50, row_ns=3)
    cost = model_of(2, 2, links).price(decodes, 8, 80)
    alone = WHOLE.price(decodes, 4, 40)
    assert cost.duration_ns == alone.duration_ns + 50 + 4 * 3
    assert cost.link_bytes == 2 * alone.link_bytes + 8 * 3


def test_prompts_are_sent_on_where_their_group_ends_a_stage() -> None:
    """Seven layers, stages of 4 and 3: a group of 2 to 4 is sent, one of 4 to 6 not."""
    chunk = (PrefillChunk(0, 0, 20),)

    def sent(first: int, last: int) -> int:
        spans = (
            LayerSpan(0, first),
            LayerSpan(first, last, chunk),
            LayerSpan(last, 7),
        )
        batch = (StepPlan(spans), 5, 50)
        return (
            model_of(2, 1, Links(row_ns=1)).price(*batch).link_bytes
            - model_of(2, 1).price(*batch).link_bytes
        )

    assert pipeline_stages(7, 2)[0].last == 4
    assert sent(2, 4) == 25
    assert sent(4, 6) == 5


def test_energy_of_bubbles_is_that_of_waiting() -> None:
    """Two GPUs, a stage each, one micro-batch: each is busy while the other waits."""
    decodes = StepPlan((LayerSpan(0, len(WINDOWS)),))
    cost = model_of(2, 1).price(decodes, 4, 40)
    busy_s = (cost.duration_ns - cost.wait_ns) * 1e-9
    assert cost.energy_run_j == pytest.approx(2 * 3.0 * busy_s)
    assert cost.energy_wait_j == pytest.approx(2 * 2.0 * cost.wait_ns * 1e-9)


def test_sends_between_gpus_by_hand() -> None:
    """Llama 3.1 70B on H100, hidden size 8192, two states of two bytes, TP2.

    A GPU sends half of 32,768 bytes a row: over NVLink at 450 GB/s, over its NIC at
    50 GB/s; 10 us of latency and the gather on top. Stages 0, 1 and 2, 3 share nodes.
    """
    links = pipeline_links(
        gpu("h100_sxm"),
        model("meta-llama/Llama-3.1-70B"),
        lambda rows: Timed(7 * rows),
        tp=2,
        stages_per_node=2,
    )
    near, far = 512 * 16_384 / 450, 512 * 16_384 / 50
    assert P2P_LATENCY_NS == 10_000
    assert links.send_ns(0, 512) == 10_000 + round(near) + 7 * 512
    assert links.send_ns(1, 512) == 10_000 + round(far) + 7 * 512
    assert links.send_ns(2, 512) == links.send_ns(0, 512)
    assert links.send_bytes(512) == 2 * 512 * 32_768
