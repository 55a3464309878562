"""Every plan is checked before it runs: a wrong policy is an error, not a number."""

from __future__ import annotations

from collections.abc import Sequence

from sim.errors import SimulationError
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.view import EngineLimits, PrefillState, QueuedRequest, SchedulerView


def check_plan(
    plan: StepPlan, view: SchedulerView, limits: EngineLimits, *, stall_free: bool
) -> None:
    """Check one plan against the view it was made from.

    Raises:
        SimulationError: If layers are not covered once, a decoding request stalls
            under a stall-free policy, a prompt token would run twice or out of
            order, a limit is exceeded, or the plan does nothing.
    """
    _check_layers(plan, limits)
    if plan.preempted:
        _check_preempted(plan, view)
    decoding = view.num_decoding - len(plan.preempted)
    _check_decode(plan, decoding, stall_free=stall_free)
    prefills = [span for span in plan.spans if span.prefill]
    admitted = _check_prefill(prefills, view, limits) if prefills else ()
    _check_sequences(decoding, admitted, view, limits)
    if not prefills and not (decoding and plan.spans[0].decode):
        raise SimulationError("the plan schedules no token although there is work")


def _check_preempted(plan: StepPlan, view: SchedulerView) -> None:
    newest = view.newest_decoding()
    for request_id in plan.preempted:
        if next(newest, (None, 0))[0] != request_id:
            raise SimulationError(
                f"request {request_id} preempted, which is not the newest that decodes"
            )


def _check_layers(plan: StepPlan, limits: EngineLimits) -> None:
    layer = 0
    for span in plan.spans:
        if span.first != layer or span.last <= span.first:
            raise SimulationError(
                f"layer spans leave a gap or overlap at layer {layer}"
            )
        layer = span.last
    if layer != limits.num_layers:
        raise SimulationError(
            f"layer spans cover {layer} of {limits.num_layers} layers"
        )


def _check_decode(plan: StepPlan, decoding: int, *, stall_free: bool) -> None:
    decode = plan.spans[0].decode
    for span in plan.spans:
        if span.decode != decode:
            raise SimulationError("the decode batch would run in some layers only")
    if stall_free and decoding and not decode:
        raise SimulationError(
            f"{decoding} decoding requests stall under a stall-free policy"
        )


def _check_prefill(
    spans: Sequence[LayerSpan], view: SchedulerView, limits: EngineLimits
) -> Sequence[QueuedRequest]:
    """Check the chunks of ``spans`` against progress; returns whom they admit."""
    states = {state.id: state for state in view.prefilling}
    progress: dict[int, tuple[int, int]] = {}
    admitted: list[QueuedRequest] = []
    waiting, fit = iter(view.waiting), view.fits(limits)
    tokens = 0
    for span in spans:
        for chunk in span.prefill:
            state = states.get(chunk.request_id)
            if state is None:
                queued = next(waiting, None)
                if queued is None or queued.id != chunk.request_id:
                    raise SimulationError(
                        f"request {chunk.request_id} is not next in the waiting queue"
                    )
                admitted.append(queued)
                cached = fit(queued).cached_tokens
                state = PrefillState(queued.id, queued.tokens, cached)
                states[queued.id] = state
            known = (state.layers_done, state.chunk if state.layers_done else 0)
            _check_chunk(span, chunk, state, progress.get(state.id, known))
            if span.first == 0:
                tokens += chunk.tokens
            progress[state.id] = (span.last, chunk.tokens)
    # A resumed prompt may have outgrown the budget; it then runs alone.
    if tokens > limits.max_num_batched_tokens and not (
        all(len(span.prefill) <= 1 for span in spans)
        and any(queued.resumed for queued in admitted)
    ):
        raise SimulationError(
            f"{tokens} prefill tokens exceed max_num_batched_tokens ="
            f" {limits.max_num_batched_tokens}"
        )
    return admitted


def _check_chunk(
    span: LayerSpan, chunk: PrefillChunk, state: PrefillState, known: tuple[int, int]
) -> None:
    """Check one chunk in one span; ``known`` is (layers done, tokens in flight)."""
    done, in_flight = known
    if span.first != done:
        raise SimulationError(
            f"request {state.id} runs layer {span.first} after {done} layers"
        )
    moved = in_flight and chunk.tokens != in_flight
    if chunk.start != state.computed or moved:
        raise SimulationError(f"request {state.id} runs prompt tokens out of order")
    if not 0 < chunk.tokens <= state.tokens - state.computed:
        raise SimulationError(
            f"request {state.id} has no {chunk.tokens} tokens to prefill"
        )


def _check_sequences(
    decoding: int,
    admitted: Sequence[QueuedRequest],
    view: SchedulerView,
    limits: EngineLimits,
) -> None:
    running = decoding + len(view.prefilling) + len(admitted) + view.incoming
    if running > limits.max_num_seqs:
        raise SimulationError(
            f"{running} running requests exceed max_num_seqs = {limits.max_num_seqs}"
        )
