"""All kernels of an iteration, in the order they are issued."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise
from typing import Final

from sim.kernel_times import KernelTimes
from sim.machine.batch import Batch
from sim.machine.layer_kernels import Part
from sim.machine.layers import GroupGpu, Layer, LayerIssue
from sim.machine.streams import Kernel
from sim.model_work import ModelWork
from sim.plan import LayerSpan, StepPlan
from sim.step_parts import StepParts

HOST: Final = "host"
"""Stands for the engine's host time, in which the GPUs wait."""
_UNSCALED: Final = frozenset({HOST, "engine"})


class IterationKernels:
    """Lists an iteration: host, embedding, layers, LM head, engine.

    Args:
        issue: Lists a layer's kernels.
        parts: Times around the layers.
        kernels: Times of the collectives around the layers.
        work: Bytes of the model, and which layers are of which kind.
        padded: Maps rows to (rows that run, whether a CUDA graph replays them).
        gpu: What they run on.
        kernel_factor: On every kernel time.
    """

    def __init__(
        self,
        *,
        issue: LayerIssue,
        parts: StepParts,
        kernels: KernelTimes,
        work: ModelWork,
        padded: Callable[[int], tuple[int, bool]],
        gpu: GroupGpu,
        kernel_factor: float,
    ) -> None:
        self._issue = issue
        self._parts = parts
        self._kernels = kernels
        self._work = work
        self._padded = padded
        self._num_gpus = gpu.num_gpus
        self._layer_gap_ns = gpu.layer_gap_ns
        self._factor = kernel_factor
        self._kind_of = tuple(
            next(kind for kind in work.kinds if kind.layers(layer, layer + 1))
            for layer in range(work.num_layers)
        )

    def of(self, plan: StepPlan, decoding: int, context_tokens: int) -> list[Kernel]:
        """Kernels of ``plan`` for ``decoding`` rows that attend to that many tokens."""
        rows = decoding if plan.spans[0].decode else 0
        around = self._parts.around(plan, decoding)
        embedding, gather = self._outer_collectives(
            plan, rows, around["head_collectives"]
        )
        listed = [
            *self._issue.compute(Part(HOST, around[HOST], 0.0)),
            *_in_turn(embedding),
        ]
        gaps_ns = self._add_layers(listed, plan, rows, context_tokens)
        head_bytes = self._work.head_weight_bytes / self._num_gpus
        listed += _in_turn(
            [
                *self._issue.compute(Part("head", around["head"], head_bytes)),
                *gather,
                *self._issue.compute(Part("engine", around["engine"] - gaps_ns, 0.0)),
            ]
        )
        listed[0] = listed[0]._replace(after=())
        return self._scaled(listed)

    def _outer_collectives(
        self, plan: StepPlan, rows: int, total_ns: int
    ) -> tuple[list[Kernel], list[Kernel]]:
        """All-reduce of the embedding, and gather of the logits."""
        issue, work, gpus = self._issue, self._work, self._num_gpus
        entering = rows + sum(chunk.tokens for chunk in plan.spans[0].prefill)
        logit_rows = rows + sum(len(span.prefill) for span in plan.spans)
        reduce_ns = 0
        if entering:
            run, graph = self._padded(entering)
            reduce_ns = self._kernels.all_reduce(run, graph=graph).ns
        reduced = entering * work.all_reduce_bytes / gpus
        gathered = logit_rows * work.gather_bytes / gpus
        return (
            issue.collective("all_reduce", reduce_ns, reduced),
            issue.collective("all_gather", total_ns - reduce_ns, gathered),
        )

    def _add_layers(
        self, listed: list[Kernel], plan: StepPlan, rows: int, context_tokens: int
    ) -> int:
        """Append every layer's kernels; returns their gaps (ns)."""
        layers_run, tail = 0, 1
        for span in plan.spans:
            batch = _batch(span, rows, context_tokens)
            if not batch.rows:
                continue
            known: dict[tuple[bool, bool, int], Layer] = {}
            for layer in range(span.first, span.last):
                kind, windowed = self._kind_of[layer], self._windowed(layer)
                key = (kind.leading, windowed, tail)
                made = known.get(key)
                if made is None:
                    made = known[key] = self._issue.layer(
                        batch, kind, windowed=windowed, tail=tail
                    )
                listed.extend(made.kernels)
                tail = made.tail
            layers_run += span.layers
        return layers_run * self._layer_gap_ns

    def _windowed(self, layer: int) -> bool:
        before = self._work.windowed_before
        return before[layer + 1] > before[layer]

    def _scaled(self, kernels: list[Kernel]) -> list[Kernel]:
        """Apply the kernel factor; the sum is scaled, then rounded once."""
        if self._factor == 1.0:
            return kernels
        times = [0 if k.name in _UNSCALED else k.duration_ns for k in kernels]
        ends = [round(ns * self._factor) for ns in accumulate(times, initial=0)]
        return [
            k if k.name in _UNSCALED else _lasting(k, end - start)
            for k, (start, end) in zip(kernels, pairwise(ends), strict=True)
        ]


def _batch(span: LayerSpan, rows: int, context_tokens: int) -> Batch:
    chunks = tuple((chunk.start, chunk.tokens) for chunk in span.prefill)
    decoding = rows if span.decode else 0
    return Batch(decoding, context_tokens if decoding else 0, chunks)


def _in_turn(kernels: Iterable[Kernel]) -> list[Kernel]:
    return [k._replace(after=(1,)) for k in kernels]


def _lasting(kernel: Kernel, duration_ns: int) -> Kernel:
    """The kernel at the same bytes/s for another time."""
    flow = kernel.flow
    rate = flow.size // kernel.duration_ns
    scaled = flow._replace(size=rate * duration_ns)
    return kernel._replace(duration_ns=duration_ns, flow=scaled)
