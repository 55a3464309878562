"""Kernel times of simple closed form, and an iteration priced layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.kernel_times import Timed
from sim.plan import PrefillChunk, StepPlan


class Kernels:
    """Integer closed forms; more than 40 rows, or 90 keys, count as extrapolated."""

    def linear(self, rows: int, *, leading: bool = False) -> Timed:
        return self._timed((53 if leading else 7) + 3 * rows, rows > 40)

    def elementwise(self, rows: int, *, leading: bool = False) -> Timed:
        return Timed((59 if leading else 2) + rows)

    def experts(self, rows: int, touched: float) -> Timed:
        return self._timed(round(11 * touched) + 5 * rows, rows > 40)

    def all_reduce(self, rows: int, *, graph: bool) -> Timed:
        return self._timed((13 if graph else 29) + 2 * rows, rows > 40)

    def prefill_attention(
        self, chunks: Sequence[tuple[int, int]], *, windowed: bool
    ) -> Timed:
        ns = 17 + sum((1 if windowed else 3) * p + 19 * n for p, n in chunks)
        return self._timed(ns, any(n > 40 for _, n in chunks))

    def decode_attention(self, batch: int, context: int, *, windowed: bool) -> Timed:
        return self._timed(23 + batch + (1 if windowed else 5) * context, context > 90)

    def head(self, rows: int, logit_rows: int) -> Timed:
        return self._timed(31 + 2 * rows + 37 * logit_rows, rows > 40)

    def embedding(self, rows: int) -> Timed:
        return self._timed(5 + rows, rows > 40)

    def gather_logits(self, logit_rows: int) -> Timed:
        return Timed(43 + 47 * logit_rows)

    @staticmethod
    def _timed(ns: int, outside: bool) -> Timed:
        return Timed(ns, ns if outside else 0)


class Routing:
    """Experts touched: half of the rows decoding, one per chunk and 8 of its tokens."""

    def touched(self, decode_tokens: int, chunks: tuple[int, ...] = ()) -> float:
        return decode_tokens / 2 + sum(1 + tokens / 8 for tokens in chunks)


def padded(rows: int) -> tuple[int, bool]:
    """Graphs of 8, 16, 24 and 32 rows; eager beyond."""
    return (rows, False) if rows > 32 else (-(-rows // 8) * 8, True)


@dataclass
class Literal:
    """One iteration, layer by layer, kernel by kernel.

    The first ``leading`` layers are dense; chunks of at most ``absorbed`` tokens attend
    to latents as they are, None for grouped-query attention.
    """

    windows: Sequence[int]
    dense: bool
    ns: int = 0
    wait_ns: int = 0
    extrapolated_ns: int = 0
    extrapolated_experts_ns: int = 0
    extrapolated_attention_ns: int = 0
    extrapolated_head_ns: int = 0
    expert_weight_bytes: int = 0
    other_weight_bytes: int = 0
    kv_bytes: int = 0
    activation_bytes: int = 0
    link_bytes: int = 0
    flops: int = 0
    leading: int = 0
    absorbed: int | None = None

    def kernel(self, timed: Timed, *, wait: bool = False, of: str = "") -> None:
        self.ns += timed.ns
        self.wait_ns += timed.ns if wait else 0
        self.extrapolated_ns += timed.extrapolated_ns
        if of:
            name = f"extrapolated_{of}_ns"
            setattr(self, name, getattr(self, name) + timed.extrapolated_ns)

    def run(self, plan: StepPlan, decoding: int, context: int) -> None:
        for span in plan.spans:
            for layer in range(span.first, span.last):
                rows = decoding if span.decode else 0
                self.layer(layer, span.prefill, rows, context)
        self.head(plan, decoding if plan.spans[0].decode else 0)

    def layer(
        self, layer: int, chunks: Sequence[PrefillChunk], decoding: int, context: int
    ) -> None:
        rows = decoding + sum(c.tokens for c in chunks)
        if not rows:
            return
        kernels, window = Kernels(), self.windows[layer]
        run, graph = padded(rows)
        leads = layer < self.leading
        self.kernel(kernels.linear(run, leading=leads))
        self.kernel(kernels.elementwise(run, leading=leads))
        touched = Routing().touched(decoding, tuple(c.tokens for c in chunks))
        touched = 0.0 if self.dense or leads else touched
        if not leads:
            self.kernel(kernels.experts(run, touched), of="experts")
        self.other_weight_bytes += 2_000_003 if leads else 1_000_003
        self.activation_bytes += rows * (103 if leads else 101)
        self.flops += rows * (223 if leads else 211)
        for _ in range(2):
            self.kernel(kernels.all_reduce(run, graph=graph), wait=True)
            self.link_bytes += rows * 601
        if chunks:
            pairs = [(c.start, c.tokens) for c in chunks]
            attention = kernels.prefill_attention(pairs, windowed=window > 0)
            self.kernel(attention, of="attention")
        if decoding:
            attention = kernels.decode_attention(decoding, context, windowed=window > 0)
            self.kernel(attention, of="attention")
        self.bytes_and_flops(chunks, decoding, context, window, touched)

    def bytes_and_flops(
        self,
        chunks: Sequence[PrefillChunk],
        decoding: int,
        context: int,
        window: int,
        touched: float,
    ) -> None:
        self.expert_weight_bytes += round(touched * 10_007.5)
        for c in chunks:
            seen = 0
            for position in range(c.start, c.start + c.tokens):
                seen += min(position + 1, window) if window else position + 1
            if self.absorbed is None:
                self.flops += seen * 401
            elif c.tokens <= self.absorbed:
                self.flops += seen * 409
            else:
                self.flops += seen * 401 + c.start * 419
                self.activation_bytes += (c.start + c.tokens) * 421
            read = min(c.start, window) if window else c.start
            self.kv_bytes += (read + 2 * c.tokens) * 503
        seen = min(context, decoding * window) if window else context
        if decoding:
            self.kv_bytes += (seen + decoding) * 503
            self.flops += seen * (401 if self.absorbed is None else 409)

    def head(self, plan: StepPlan, decoding: int) -> None:
        entering = decoding + sum(c.tokens for c in plan.spans[0].prefill)
        logits = decoding + sum(len(span.prefill) for span in plan.spans)
        run, graph = padded(entering)
        self.kernel(Kernels().head(run, logits), of="head")
        self.kernel(Kernels().gather_logits(logits), wait=True, of="head")
        if entering:
            reduce = Kernels().all_reduce(run, graph=graph)
            self.kernel(reduce, wait=True, of="head")
        self.other_weight_bytes += 500_009
        self.flops += logits * 307
        self.link_bytes += entering * 601 + logits * 607
