"""The layered-prefill micro-benchmark: one prompt alone, in chunks, part by part."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.kernels.auxiliary import moe_auxiliary_ns
from sim.build import Machine
from sim.units import ms_from_ns
from workloads.coverage import ExpertCoverage, routing_skew

PROMPT_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class MicroTimes:
    """Predicted times of one prompt, over all layers and chunks (ms).

    Attributes:
        moe_ms: The two grouped GEMMs (what a trace calls ``fused_moe_kernel``).
        attention_ms: Prefill attention.
        other_ms: Everything else, host overhead included.
    """

    moe_ms: float
    attention_ms: float
    other_ms: float

    @property
    def total_ms(self) -> float:
        """Sum of the parts."""
        return self.moe_ms + self.attention_ms + self.other_ms


def predict(
    machine: Machine, chunk_tokens: int, touched: float | None = None
) -> MicroTimes:
    """Times of one ``PROMPT_TOKENS`` prompt without any other request.

    Args:
        machine: A mixture-of-experts model on its GPUs.
        chunk_tokens: Tokens per chunk; must divide ``PROMPT_TOKENS``.
        touched: Experts a chunk touches per layer; the routing model's by default.
    """
    shape, kernels = machine.model, machine.kernels
    if touched is None:
        skew = routing_skew(shape.name)
        coverage = ExpertCoverage(shape.num_experts, shape.top_k, skew)
        touched = coverage.touched(0, (chunk_tokens,))
    chunks = PROMPT_TOKENS // chunk_tokens
    passes = chunks * shape.num_layers
    rows, graph = machine.profile.padded(chunk_tokens)
    experts_ns = kernels.experts(rows, touched).ns
    auxiliary_ns = moe_auxiliary_ns(machine.gpu, shape, rows, kernels.tp)
    attention_ns = sum(
        kernels.prefill_attention(
            ((i * chunk_tokens, chunk_tokens),), windowed=False
        ).ns
        for i in range(chunks)
    )
    other_ns = passes * (
        auxiliary_ns
        + kernels.linear(rows).ns
        + kernels.elementwise(rows).ns
        + 2 * kernels.all_reduce(rows, graph=graph).ns
    ) + chunks * (
        kernels.head(rows, 1).ns
        + kernels.all_reduce(rows, graph=graph).ns
        + kernels.gather_logits(1).ns
        + machine.profile.host.prefill_ns
    )
    return MicroTimes(
        moe_ms=ms_from_ns(passes * (experts_ns - auxiliary_ns)),
        attention_ms=ms_from_ns(shape.num_layers * attention_ns),
        other_ms=ms_from_ns(other_ns),
    )
