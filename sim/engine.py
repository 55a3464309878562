"""State of one replica's engine, advanced one plan at a time; knows no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sim.decode_batch import DecodeBatch
from sim.errors import SimulationError
from sim.handover import Handover
from sim.intake import Intake
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.prefix import Prefix
from sim.prefix_cache import CacheView, PrefixCache
from sim.queues import WaitingQueue
from sim.queues.ahead import ScheduledAhead
from sim.queues.fcfs import FirstComeFirstServed
from sim.request import RequestRecord, TokenRun
from sim.validation import check_plan
from sim.view import (
    EngineLimits,
    PrefillState,
    QueuedRequest,
    Scheduler,
    SchedulerView,
    ask,
)


class Engine:
    """Queues, KV blocks and token counts of a replica under one scheduler.

    The owner calls :meth:`submit` on arrivals, and per iteration :meth:`plan`,
    :meth:`begin` at its start and :meth:`finish` at its end.

    Attributes:
        scheduler: The policy.
        limits: The engine's options.
        num_blocks: KV blocks in all.
        waiting: Requests not admitted, by its queue discipline.
        prefilling: Admitted prompts in progress, by request id.
        decoding: Decoding requests.
        free_blocks: KV blocks nobody holds, those of the prefix cache included.
        cache: Blocks that can be found by what they hold; None without prefix caching.
        preemptions: Evictions so far.
        parked: Tokens of prefilled requests whose KV cache waits to move elsewhere.
        intake: Requests that other replicas prefill for this one.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        limits: EngineLimits,
        num_blocks: int,
        waiting: WaitingQueue | None = None,
        *,
        hands_over: bool = False,
        prefix_caching: bool = False,
    ) -> None:
        self.scheduler = scheduler
        self.limits = limits
        self.num_blocks = self.free_blocks = num_blocks
        queue: WaitingQueue = FirstComeFirstServed() if waiting is None else waiting
        self.waiting = queue
        self._ahead = queue if isinstance(queue, ScheduledAhead) else None
        self.prefilling: dict[int, PrefillState] = {}
        self.decoding = DecodeBatch(limits.block_size)
        self.cache = PrefixCache(limits.block_size) if prefix_caching else None
        self.preemptions = 0
        self.hands_over = hands_over
        self.parked: dict[int, int] = {}
        self.intake = Intake()
        self._records: dict[int, RequestRecord] = {}
        self._emitted: dict[int, int] = {}
        self._first_ns: dict[int, int] = {}
        self._decoding_of: Counter[int] = Counter()  # by client, if it is charged

    @property
    def has_work(self) -> bool:
        """Whether any request waits, runs, or is coming from another replica."""
        return bool(self._records or self.intake)

    def submit(self, record: RequestRecord) -> None:
        """Queue an arrival, or mark it rejected when it can never be served."""
        request = record.request
        tokens = request.prompt_tokens
        reason = self.limits.reject_reason(tokens)
        record.rejected = reason or self.scheduler.reject_reason(tokens)
        if record.rejected is None:
            room = self.limits.max_model_len - tokens
            record.output_tokens = min(request.output_tokens, room)
            self._records[request.id] = record
            self._emitted[request.id] = 0
            self.waiting.push(self._queued(record, tokens))

    @staticmethod
    def _queued(
        record: RequestRecord, tokens: int, *, resumed: bool = False
    ) -> QueuedRequest:
        request = record.request
        return QueuedRequest(request.id, tokens, resumed, request.client)

    def plan(self) -> StepPlan | None:
        """Ask the scheduler for the next iteration and check its answer.

        None if nothing can run before a KV cache in motion has arrived or left.

        Raises:
            SimulationError: If the plan breaks a limit, a promise or the work queue.
        """
        if self.intake.incoming:
            self._join_arrived()
        if not (self.decoding.size or self.prefilling):
            if not self.waiting:
                return None
            if self._ahead is not None:
                self._ahead.idle()
        view = SchedulerView(
            waiting=self.waiting,
            prefilling=tuple(self.prefilling.values()),
            num_decoding=self.decoding.size,
            decode_blocks=self.decoding.blocks_needed(),
            free_blocks=self.free_blocks,
            newest_decoding=self.decoding.newest_first,
            stored_tokens=self.decoding.stored_tokens,
            incoming=len(self.intake.incoming),
            sharing=None if self.cache is None else self._sharing(self.cache),
        )
        plan = ask(self.scheduler, view)
        if self._blocked(plan):
            return None
        check_plan(plan, view, self.limits, stall_free=self.scheduler.stall_free)
        return plan

    def _blocked(self, plan: StepPlan) -> bool:
        """Whether the blocks or slots that all wait for belong to moving caches.

        Such a plan is dropped, preemptions and all: what moves will be here or gone
        soon, and then somebody can run.
        """
        if not (self.parked or self.intake.incoming):
            return False
        decodes = self.decoding.size > len(plan.preempted)
        return not decodes and not any(span.prefill for span in plan.spans)

    def repeats(self, plan: StepPlan) -> int:
        """Iterations in a row, from the next, that ``plan`` is known to be right for.

        More than one for a steady policy's plan of decodes only: up to the first
        completion, while KV blocks last, and if no request arrives. Where decoding
        moves the queue, nobody may wait.
        """
        spans, batch = plan.spans, self.decoding
        alone = len(spans) == 1 and not spans[0].prefill and spans[0].decode
        if not (alone and batch.size and self.scheduler.steady) or plan.preempted:
            return 1
        if self.waiting and not self.waiting.fixed_order:
            return 1
        return min(batch.steps_to_completion(), batch.steps_within(self.free_blocks))

    def begin(self, plan: StepPlan, start_ns: int) -> None:
        """Preempt, admit and reserve the KV blocks of an iteration that starts now."""
        for request_id in plan.preempted:
            self._preempt(request_id)
        for span in plan.spans:
            if span.prefill and span.first == 0:
                for chunk in span.prefill:
                    self._start_chunk(chunk, start_ns)
        if plan.spans[0].decode:
            self.free_blocks -= self.decoding.blocks_needed()
        if self.free_blocks < 0:
            raise SimulationError(f"KV cache overdrawn by {-self.free_blocks} blocks")
        self._trim()
        if self._ahead is not None:
            self._ahead.begin()

    def _prefix(self, request_id: int) -> Prefix:
        return self._records[request_id].request.prefix

    def _sharing(self, cache: PrefixCache) -> CacheView:
        return CacheView(cache, self._prefix, self.decoding.newest_first)

    def _trim(self) -> None:
        """Forget cached blocks whose room has been taken."""
        if self.cache is not None:
            self.cache.trim(self.free_blocks)

    def _free(self, request_id: int, tokens: int) -> None:
        """Take the KV blocks of a request that stores ``tokens`` tokens."""
        if self.cache is None:
            self.free_blocks += self.limits.blocks(tokens)
        else:
            prefix = self._prefix(request_id)
            self.free_blocks += self.cache.leave(request_id, prefix, tokens)

    def _start_chunk(self, chunk: PrefillChunk, start_ns: int) -> None:
        state = self.prefilling.get(chunk.request_id)
        if state is None:
            state = self._admit(chunk.request_id, start_ns)
        state.chunk = chunk.tokens

    def _admit(self, request_id: int, start_ns: int) -> PrefillState:
        queued = self.waiting.pop_front()
        if queued.id != request_id:
            raise SimulationError(
                f"request {request_id} admitted before {queued.id}, which came first"
            )
        cached = self._find_prefix(queued)
        state = PrefillState(queued.id, queued.tokens, cached)
        self.prefilling[queued.id] = state
        self.free_blocks -= self.limits.blocks(queued.tokens - cached)
        record = self._records[queued.id]
        if record.first_scheduled_ns is None:
            record.first_scheduled_ns = start_ns
            record.cached_tokens = cached
        return state

    def _find_prefix(self, queued: QueuedRequest) -> int:
        """Hold what is cached of a prompt; returns its tokens, of whole blocks.

        Nothing that the plan counted on is forgotten before :meth:`begin` ends.
        """
        if self.cache is None:
            return 0
        prefix = self._prefix(queued.id)
        blocks = self.cache.matched(prefix, queued.tokens)
        self.free_blocks += self.cache.hold(queued.id, prefix, blocks)
        return blocks * self.limits.block_size

    def _preempt(self, request_id: int) -> None:
        record, stored = self._stop_decoding(request_id)
        self._free(request_id, stored)
        record.preemptions += 1
        self.preemptions += 1
        tokens = record.request.prompt_tokens + self._emitted[request_id]
        self.waiting.push_front(self._queued(record, tokens, resumed=True))

    def _count(self, record: RequestRecord, members: int) -> None:
        """Keep count of a client's decoding requests where its tokens are charged."""
        if self.waiting.charges_decodes:
            self._decoding_of[record.request.client] += members

    def _charge(self, steps: int) -> None:
        for client, members in self._decoding_of.items():
            self.waiting.decoded(client, steps * members)

    def finish(self, plan: StepPlan, end_ns: int) -> list[RequestRecord]:
        """Emit the tokens of an iteration that ends now; returns finished requests."""
        finished = self._finish_decode(end_ns) if plan.spans[0].decode else []
        for chunk in self._advance_prefill(plan.spans):
            record = self._finish_chunk(chunk, end_ns)
            if record is not None:
                finished.append(record)
        return finished

    def finish_decodes(self, steps: int, end_ns: int) -> list[RequestRecord]:
        """Emit the tokens of ``steps`` iterations of one plan of decodes only.

        :meth:`begin` was called for the first of them; the last ends now.

        Args:
            steps: At most :meth:`repeats` of the plan.
            end_ns: End of the last.
        """
        first = self.decoding.blocks_needed()
        self.free_blocks -= self.decoding.blocks_within(steps) - first
        self._trim()
        return self._finish_decode(end_ns, steps)

    def _finish_decode(self, end_ns: int, steps: int = 1) -> list[RequestRecord]:
        if not self.decoding.size:
            return []
        self._charge(steps)
        finished = []
        for request_id in self.decoding.advance(steps):
            record, stored = self._stop_decoding(request_id)
            finished.append(self._retire(record, stored, end_ns))
        return finished

    def _advance_prefill(self, spans: Iterable[LayerSpan]) -> list[PrefillChunk]:
        """Move chunks through the span's layers; returns those past the last layer."""
        done = []
        for span in spans:
            for chunk in span.prefill:
                state = self.prefilling[chunk.request_id]
                state.layers_done = span.last
                if span.last == self.limits.num_layers:
                    done.append(chunk)
        return done

    def _finish_chunk(self, chunk: PrefillChunk, end_ns: int) -> RequestRecord | None:
        state = self.prefilling[chunk.request_id]
        state.computed += state.chunk
        state.chunk = state.layers_done = 0
        if self.cache is not None:
            prefix = self._prefix(state.id)
            self.free_blocks += self.cache.complete(state.id, prefix, state.computed)
        if state.computed < state.tokens:
            return None
        del self.prefilling[state.id]
        record = self._records[state.id]
        if record.first_token_ns is None:
            record.first_token_ns = end_ns
        self._emitted[state.id] += 1
        self.waiting.decoded(record.request.client, 1)
        self._first_ns[state.id] = end_ns
        remaining = record.output_tokens - self._emitted[state.id]
        if remaining and self.hands_over:
            self.parked[state.id] = state.tokens
            return None
        if remaining:
            self.decoding.join(state.id, state.tokens, remaining)
            self._count(record, 1)
            return None
        self._close_run(record, self.decoding.tick, self.decoding.tick)
        return self._retire(record, state.tokens, end_ns)

    def _stop_decoding(self, request_id: int) -> tuple[RequestRecord, int]:
        """Take a request out of the batch; returns its KV tokens too."""
        member, stored = self.decoding.leave(request_id)
        record = self._records[request_id]
        self._count(record, -1)
        self._close_run(record, member.join_tick, self.decoding.tick)
        return record, stored

    def _close_run(self, record: RequestRecord, start: int, stop: int) -> None:
        request_id = record.request.id
        first_ns = self._first_ns.pop(request_id)
        record.runs.append(TokenRun(first_ns, start, stop))
        self._emitted[request_id] += stop - start

    def _retire(self, record: RequestRecord, stored: int, end_ns: int) -> RequestRecord:
        request_id = record.request.id
        self._free(request_id, stored)
        record.finish_ns = end_ns
        del self._records[request_id], self._emitted[request_id]
        return record

    def reset(self) -> list[RequestRecord]:
        """Lose all requests and KV blocks; returns who was here, as they came.

        The tokens emitted so far stand in their records.
        """
        lost = list(self._records.values())
        for request_id, _ in list(self.decoding.newest_first()):
            self._stop_decoding(request_id)
        if self.cache is not None:
            self.cache = PrefixCache(self.limits.block_size)
        self.free_blocks = self.num_blocks
        self.waiting.clear()
        for kept in (self._records, self._emitted, self._first_ns, self._decoding_of):
            kept.clear()
        self.prefilling.clear()
        return lost

    def handover(self, request_id: int, source: int) -> Handover:
        """A request, parked or in prefill, as replica ``source`` offers it."""
        record = self._records[request_id]
        tokens, first_ns = record.request.prompt_tokens, self._first_ns.get(request_id)
        return Handover(record, tokens, first_ns, source)

    def release(self, request_id: int) -> None:
        """Forget a parked request, whose KV cache has arrived elsewhere."""
        self._free(request_id, self.parked.pop(request_id))
        for kept in (self._records, self._emitted, self._first_ns):
            del kept[request_id]

    def pull(self) -> Handover | None:
        """Take slot and blocks for the next offered request, or None if they are short.

        Called before an iteration is planned. The next tokens of the decode batch come
        first, and so do preempted requests, which wait here.
        """
        intake = self.intake
        if not intake.offered or self.waiting:
            return None
        running = self.decoding.size + len(self.prefilling) + len(intake.incoming)
        blocks = self.limits.blocks(intake.offered[0].tokens)
        left = self.free_blocks - self.decoding.blocks_needed() - blocks
        if left < 0 or running >= self.limits.max_num_seqs:
            return None
        self.free_blocks -= blocks
        self._trim()
        return intake.take()

    def withdraw(self, request_id: int) -> None:
        """Forget a request that was to come: its prefill has finished it."""
        handover = self.intake.withdraw(request_id)
        if handover is not None:
            self.free_blocks += self.limits.blocks(handover.tokens)

    def _join_arrived(self) -> None:
        """Whose KV cache is here decodes from now on."""
        for handover in self.intake.joining():
            record, request_id = handover.record, handover.id
            self._records[request_id] = record
            self._emitted[request_id] = 1
            self._first_ns[request_id] = handover.begun_ns
            self.decoding.join(request_id, handover.tokens, record.output_tokens - 1)
            self._count(record, 1)
