"""Preemption that keeps KV blocks: out to host memory, and back before decoding."""

from __future__ import annotations

from array import array
from itertools import islice
from typing import Final

from sim.engine import Engine
from sim.errors import SimulationError
from sim.plan import StepPlan, SwapPlan
from sim.queues import WaitingQueue
from sim.request import RequestRecord, TokenRun
from sim.view import EngineLimits, PrefillState, QueuedRequest, Scheduler

WATERMARK: Final = 0.01
"""Share of the GPU's KV blocks that a swap-in leaves free beside other requests, so
that it is not evicted again at once: ``watermark`` of vLLM V0's block manager."""


def watermark_blocks(num_blocks: int) -> int:
    """KV blocks that a swap-in leaves free beside other requests, of ``num_blocks``."""
    return int(WATERMARK * num_blocks)


class SwapLog:
    """Copies of one replica, one row per iteration that began with any.

    Attributes:
        start_ns: Start of the iteration.
        requests_in: Requests whose KV blocks came back.
        requests_out: Requests whose KV blocks went to the host.
        blocks_in: KV blocks that came back.
        blocks_out: KV blocks that went.
    """

    def __init__(self) -> None:
        self.start_ns = array("q")
        self.requests_in = array("q")
        self.requests_out = array("q")
        self.blocks_in = array("q")
        self.blocks_out = array("q")

    def append(self, start_ns: int, plan: SwapPlan) -> None:
        """Record the copies of an iteration."""
        self.start_ns.append(start_ns)
        self.requests_in.append(len(plan.swapped_in))
        self.requests_out.append(len(plan.swapped_out))
        self.blocks_in.append(plan.blocks_in)
        self.blocks_out.append(plan.blocks_out)


class SwappingEngine(Engine):
    """An engine under ``preemption_mode = "swap"`` of vLLM V0 (``core/scheduler.py``).

    KV blocks of a preempted request are copied to host memory and stay there until it
    is first in the queue and there are a sequence slot and GPU blocks for it: its own,
    one for the next token, and the watermark. It then decodes on, with nothing to
    prefill. Nobody is admitted before it, as in V0 without chunked prefill. Where the
    host has no room, the request is recomputed; V0 aborts.

    Args:
        scheduler: The policy.
        limits: The engine's options.
        num_blocks: KV blocks of the GPUs.
        host_blocks: KV blocks that host memory holds.
        waiting: Queue discipline; None is first come, first served.

    Attributes:
        host_blocks: KV blocks of the host pool in all.
        free_host_blocks: Those that nobody holds.
        swaps: Copies so far.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        limits: EngineLimits,
        num_blocks: int,
        host_blocks: int,
        waiting: WaitingQueue | None = None,
    ) -> None:
        super().__init__(scheduler, limits, num_blocks, waiting)
        self.host_blocks = self.free_host_blocks = host_blocks
        self.swaps = SwapLog()
        self._watermark = watermark_blocks(num_blocks)
        self._swapped: dict[int, int] = {}  # KV tokens on the host
        self._back: set[int] = set()  # decode, and came back for it
        self._silent: set[int] = set()  # those of them without a token since
        self._going: tuple[int, ...] = ()

    def plan(self) -> StepPlan | None:
        """Bring back who fits, then ask the scheduler, as :meth:`Engine.plan`."""
        back, blocks_in = self._swap_in()
        plan = super().plan()
        if plan is None or not (back or plan.preempted):
            return plan
        out, blocks_out = self._who_goes(len(plan.preempted))
        if not (back or out):
            return plan
        return SwapPlan(plan.spans, plan.preempted, back, out, blocks_in, blocks_out)

    def _swap_in(self) -> tuple[tuple[int, ...], int]:
        """Let those in front of the queue decode on; who they are, and their blocks."""
        back: list[int] = []
        copied = 0
        while self._swapped:
            head = next(iter(self.waiting))
            if not (head.swapped and self._fits(self._swapped[head.id])):
                break
            self.waiting.pop_front()
            stored = self._swapped.pop(head.id)
            blocks = self.limits.blocks(stored)
            self.free_blocks -= blocks
            self.free_host_blocks += blocks
            record = self._records[head.id]
            owed = record.output_tokens - self._emitted[head.id]
            self.decoding.join(head.id, stored, owed)
            self._count(record, 1)
            self._back.add(head.id)
            self._silent.add(head.id)
            back.append(head.id)
            copied += blocks
        return tuple(back), copied

    def _fits(self, stored: int) -> bool:
        """Whether there is room for a request that stores so many tokens.

        While others only decode, what is free after their next tokens never grows.
        """
        running = self.decoding.size + len(self.prefilling)
        if not running:
            return self.limits.blocks(stored + 1) <= self.free_blocks
        left = self.free_blocks - self.decoding.blocks_needed()
        left -= self.limits.blocks(stored) + 1
        return running < self.limits.max_num_seqs and left >= self._watermark

    def _who_goes(self, victims: int) -> tuple[tuple[int, ...], int]:
        """Which of the newest requests the host has room for, and their blocks."""
        out: list[int] = []
        free = self.free_host_blocks
        for request_id, stored in islice(self.decoding.newest_first(), victims):
            blocks = self.limits.blocks(stored)
            if blocks <= free:
                out.append(request_id)
                free -= blocks
        return tuple(out), self.free_host_blocks - free

    def repeats(self, plan: StepPlan) -> int:
        """As :meth:`Engine.repeats`; an iteration that copies is one of a kind."""
        return 1 if self._silent else super().repeats(plan)

    def begin(self, plan: StepPlan, start_ns: int) -> None:
        """As :meth:`Engine.begin`; victims with room on the host go there."""
        if isinstance(plan, SwapPlan):
            self.swaps.append(start_ns, plan)
            self._going = plan.swapped_out
        super().begin(plan, start_ns)
        self._going = ()

    def _preempt(self, request_id: int) -> None:
        if request_id not in self._going:
            super()._preempt(request_id)
            return
        record, stored = self._stop_decoding(request_id)
        self._free(request_id, stored)
        self.free_host_blocks -= self.limits.blocks(stored)
        self._swapped[request_id] = stored
        record.preemptions += 1
        self.preemptions += 1
        request = record.request
        tokens = request.prompt_tokens + self._emitted[request_id]
        self.waiting.push_front(
            QueuedRequest(
                request_id, tokens, resumed=True, client=request.client, swapped=True
            )
        )

    def _admit(self, request_id: int, start_ns: int) -> PrefillState:
        if request_id in self._swapped:
            raise SimulationError(
                f"request {request_id} admitted, whose KV cache is on the host"
            )
        return super()._admit(request_id, start_ns)

    def finish(self, plan: StepPlan, end_ns: int) -> list[RequestRecord]:
        """As :meth:`Engine.finish`; whoever came back has the first token since."""
        if plan.spans[0].decode:
            for request_id in self._silent:
                self._first_ns[request_id] = end_ns
                self._emitted[request_id] += 1
            self._silent.clear()
        return super().finish(plan, end_ns)

    def _close_run(self, record: RequestRecord, start: int, stop: int) -> None:
        request_id = record.request.id
        if request_id not in self._back:
            super()._close_run(record, start, stop)
            return
        self._back.remove(request_id)
        if request_id in self._silent:
            self._silent.remove(request_id)
            return
        first_ns, start = self._first_ns.pop(request_id), start + 1
        record.runs.append(TokenRun(first_ns, start, stop, resumed=True))
        self._emitted[request_id] += stop - start

    def reset(self) -> list[RequestRecord]:
        """As :meth:`Engine.reset`; what the host holds is lost too."""
        lost = super().reset()
        self.free_host_blocks = self.host_blocks
        self._swapped.clear()
        return lost
