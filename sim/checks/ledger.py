"""State of every request and replica, rebuilt from events and from nothing else.

Decode progress is kept as ticks, one per decode iteration of a replica, so that a
block of iterations costs no loop over its batch.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from sim.errors import InvariantError
from sim.events import ReplicaSetup
from sim.request import Request, TokenRun

LIFECYCLE: Final = "lifecycle"


class Phase(StrEnum):
    """Where a request is."""

    COMING = "coming"
    HELD = "held"
    SENT = "sent"
    WAITING = "waiting"
    PREFILLING = "prefilling"
    PARKED = "parked"
    MOVING = "moving"
    ARRIVED = "arrived"
    DECODING = "decoding"
    SWAPPED = "swapped"
    FINISHED = "finished"
    REJECTED = "rejected"
    LOST = "lost"
    STRANDED = "stranded"


TRANSITIONS: Mapping[Phase, tuple[Phase, ...]] = MappingProxyType(
    {
        Phase.COMING: (Phase.HELD,),
        Phase.HELD: (Phase.SENT, Phase.STRANDED),
        Phase.SENT: (Phase.WAITING, Phase.REJECTED, Phase.STRANDED),
        Phase.WAITING: (Phase.PREFILLING, Phase.LOST),
        Phase.PREFILLING: (
            *(Phase.DECODING, Phase.PARKED),
            *(Phase.FINISHED, Phase.LOST),
        ),
        Phase.PARKED: (Phase.MOVING,),
        Phase.MOVING: (Phase.ARRIVED,),
        Phase.ARRIVED: (Phase.DECODING,),
        Phase.DECODING: (
            *(Phase.WAITING, Phase.SWAPPED),
            *(Phase.FINISHED, Phase.LOST),
        ),
        Phase.SWAPPED: (Phase.DECODING, Phase.LOST),
        Phase.LOST: (Phase.STRANDED,),
        Phase.STRANDED: (Phase.SENT,),
        Phase.FINISHED: (),
        Phase.REJECTED: (),
    }
)
"""What may follow what; from decoding back to waiting is preemption, where swapped is
waiting with the KV cache on the host, and from parked to
arrived the KV cache goes from one replica to another. Whoever is lost with a replica,
or finds none that takes requests, is stranded at the client until it is sent."""


@dataclass(slots=True)
class Entry:
    """One request.

    Attributes:
        request: As it was sent.
        owed: Output tokens it must emit.
        goal: Tokens to prefill in the current run.
        phase: Where it is.
        since_ns: Since when.
        replica: Which one it was sent to.
        sent_ns: When the client first sent it; latencies count from here.
        routed_ns: When it was last sent to a replica.
        waits_ns: Time in the queue of each replica so far.
        computed: Tokens of the goal that went through all layers, or were cached.
        cached: Tokens that its last admission skipped.
        cached_first: Tokens that its first admission skipped.
        shared: Leading KV blocks that can be found in the prefix cache.
        emitted: Output tokens, as of the last first token or preemption.
        stored: KV tokens when it began to decode.
        join_tick: Tick at which it began to decode.
        blocks: KV blocks held.
        skipped: Tokens that all admissions of this attempt skipped.
        preemptions: Times it was preempted.
        retries: Times it was sent again.
        first_scheduled_ns: Start of its first prefill.
        first_token_ns: Its first output token.
        finish_ns: Its last.
        runs: Token times, as in :class:`~sim.request.RequestRecord`.
        run_first_ns: First token of the current run.
        target: Replica that is to decode it, if another one prefilled it.
        moved_blocks: KV blocks held there while its cache is on its way.
        arrives_ns: When all of it will be there.
        parked_ns: Since when its cache could be sent.
        prefill_replica: Replica that prefilled it, if its cache has moved.
        stays_ns: Time in the engines of each replica it has left.
        entered_ns: When it entered the replica it is at.
        target_ns: When the target took it.
        pulled: Whether the target has done so before its prefill has ended.
        withdrawn: Whether it ended where it was prefilled, after it was offered.
        resumed: Whether its current run began with its KV cache coming back.
        resumes: Times it came back, of all attempts.
        host_blocks: KV blocks held on the host.
        swapped_out: KV blocks copied to the host so far.
        swapped_in: KV blocks copied back so far.
    """

    request: Request
    owed: int
    goal: int
    phase: Phase = Phase.COMING
    since_ns: int = 0
    replica: int = -1
    sent_ns: int = 0
    routed_ns: int = 0
    waits_ns: dict[int, int] = field(default_factory=dict)
    computed: int = 0
    cached: int = 0
    cached_first: int = 0
    shared: int = 0
    emitted: int = 0
    stored: int = 0
    join_tick: int = 0
    blocks: int = 0
    skipped: int = 0
    preemptions: int = 0
    retries: int = 0
    first_scheduled_ns: int | None = None
    first_token_ns: int | None = None
    finish_ns: int | None = None
    runs: list[TokenRun] = field(default_factory=list)
    run_first_ns: int = 0
    target: int = -1
    moved_blocks: int = 0
    arrives_ns: int = 0
    parked_ns: int = 0
    prefill_replica: int = -1
    stays_ns: dict[int, int] = field(default_factory=dict)
    entered_ns: int = 0
    target_ns: int = 0
    pulled: bool = False
    withdrawn: bool = False
    resumed: bool = False
    resumes: int = 0
    host_blocks: int = 0
    swapped_out: int = 0
    swapped_in: int = 0

    def move(self, phase: Phase, time_ns: int) -> None:
        """Enter a phase.

        Raises:
            InvariantError: If the lifecycle has no such transition.
        """
        if phase not in TRANSITIONS[self.phase]:
            raise InvariantError(
                LIFECYCLE,
                f"goes from {self.phase} to {phase}, allowed:"
                f" {', '.join(TRANSITIONS[self.phase]) or 'nothing'}",
                time_ns,
                self.request.id,
                self.replica if self.replica >= 0 else None,
            )
        if self.phase in (Phase.WAITING, Phase.SWAPPED):
            waited_ns = self.waits_ns.get(self.replica, 0)
            self.waits_ns[self.replica] = waited_ns + time_ns - self.since_ns
        self.phase, self.since_ns = phase, time_ns

    @property
    def runs_begun(self) -> int:
        """Tells its runs apart, of all attempts."""
        return self.preemptions + self.resumes + self.retries

    def stay(self, time_ns: int) -> None:
        """Count its time in the replica it leaves now."""
        stayed_ns = self.stays_ns.get(self.replica, 0)
        self.stays_ns[self.replica] = stayed_ns + time_ns - self.entered_ns

    def start_over(self) -> None:
        """Forget an attempt."""
        self.retries += 1
        self.goal = self.request.prompt_tokens
        self.computed = self.cached = self.cached_first = self.skipped = 0
        self.emitted, self.runs, self.replica = 0, [], -1
        self.swapped_out = self.swapped_in = 0
        self.first_scheduled_ns = self.first_token_ns = None


class ReplicaBook:
    """One replica: its queues by request id, decode ticks and KV blocks.

    Attributes:
        setup: What it promises.
        waiting: In order.
        prefilling: In order of admission.
        decoding: In order of joining.
        parked: Prefilled here, to be decoded elsewhere.
        incoming: On their way here, or here and not yet decoding, in order of arrival.
        offered: To come here, in order.
        ends_ns: End of each decode iteration.
        used_blocks: KV blocks its requests need.
        block_ns: Blocks times time held, of blocks that were freed, less the time at
            which blocks still held were taken.
        skipped_tokens: Tokens that admissions found in the prefix cache, but for
            attempts that were lost.
        lost_rows: Decode rows of attempts that were lost.
        host_blocks: KV blocks of its requests in host memory.
    """

    def __init__(self, setup: ReplicaSetup) -> None:
        self.setup = setup
        self.waiting: deque[int] = deque()
        self.prefilling: dict[int, Entry] = {}
        self.decoding: dict[int, Entry] = {}
        self.parked: dict[int, Entry] = {}
        self.incoming: dict[int, Entry] = {}
        self.offered: deque[int] = deque()
        self.ends_ns = array("q")
        self.used_blocks = 0
        self.block_ns = 0
        self.skipped_tokens = 0
        self.lost_rows = 0
        self.host_blocks = 0
        self._sharers: Counter[int] = Counter()  # requests that hold a block, by key
        self._growing: dict[int, list[_Due]] = {}
        self._stopping: dict[int, list[_Due]] = {}

    @property
    def tick(self) -> int:
        """Decode iterations that have ended."""
        return len(self.ends_ns)

    @property
    def present(self) -> int:
        """Requests in the engine."""
        here = len(self.waiting) + len(self.prefilling) + len(self.decoding)
        return here + len(self.parked) + len(self.incoming)

    @property
    def growing(self) -> int:
        """KV blocks that the next token of every decoding request takes."""
        return sum(due.holds for due in self._growing.get(self.tick, ()))

    def take_blocks(self, entry: Entry, blocks: int, time_ns: int) -> None:
        """Give KV blocks to a request."""
        entry.blocks += blocks
        self._count(blocks, time_ns)

    def share(self, entry: Entry, tokens: int, time_ns: int) -> None:
        """Let others find the whole blocks of a request's first tokens.

        A block that somebody else holds too is no longer its own: it exists once.
        """
        if not self.setup.prefix_caching:
            return
        prefix, size = entry.request.prefix, self.setup.limits.block_size
        last = prefix.blocks(tokens, size)
        for key in prefix.keys(entry.shared, last, size):
            self._count(-(self._sharers[key] > 0), time_ns)
            self._sharers[key] += 1
        entry.shared = max(entry.shared, last)

    def _count(self, blocks: int, time_ns: int) -> None:
        self.used_blocks += blocks
        self.block_ns -= blocks * time_ns

    def free_blocks(self, entry: Entry, time_ns: int) -> None:
        """Take all KV blocks of a request, but those that somebody else holds too."""
        size = self.setup.limits.block_size
        for key in entry.request.prefix.keys(0, entry.shared, size):
            self._sharers[key] -= 1
            self._count(self._sharers[key] > 0, time_ns)
        self._count(-entry.blocks, time_ns)
        entry.blocks = entry.shared = 0

    def hold_incoming(self, entry: Entry, blocks: int, time_ns: int) -> None:
        """Set KV blocks aside for a cache that will arrive."""
        entry.moved_blocks = blocks
        self._count(blocks, time_ns)

    def drop_incoming(self, entry: Entry, time_ns: int) -> None:
        """Give up what was set aside for a cache that will not arrive."""
        del self.incoming[entry.request.id]
        self._count(-entry.moved_blocks, time_ns)
        entry.moved_blocks = 0

    def join(self, entry: Entry) -> None:
        """Begin to decode from the coming iteration on."""
        tick, size = self.tick, self.setup.limits.block_size
        self.decoding[entry.request.id] = entry
        entry.stored, entry.join_tick = entry.goal, tick
        due = _Due(entry, entry.runs_begun)
        self._stopping.setdefault(tick + entry.owed - entry.emitted, []).append(due)
        # The token of tick + k is number goal + k of the sequence: a block is full
        # when that is a multiple of its size.
        self._growing.setdefault(tick + -entry.goal % size, []).append(due)

    def leave(self, entry: Entry) -> None:
        """Stop decoding after the tokens emitted so far."""
        del self.decoding[entry.request.id]
        first, tick = entry.join_tick, self.tick
        entry.emitted += tick - first
        if not entry.resumed:
            self.close_run(entry, first)
        elif tick > first:
            run = TokenRun(self.ends_ns[first], first + 1, tick, resumed=True)
            entry.runs.append(run)
        entry.resumed = False

    def swap_out(self, entry: Entry, time_ns: int) -> None:
        """Take the KV blocks of a request that has left the batch to the host."""
        entry.host_blocks = entry.blocks
        entry.swapped_out += entry.blocks
        self.host_blocks += entry.blocks
        self.free_blocks(entry, time_ns)

    def swap_in(self, entry: Entry, time_ns: int) -> None:
        """Bring its KV blocks back, to decode from the coming iteration on."""
        blocks, entry.host_blocks = entry.host_blocks, 0
        entry.swapped_in += blocks
        self.host_blocks -= blocks
        self.take_blocks(entry, blocks, time_ns)
        entry.resumed = True
        entry.resumes += 1
        self.join(entry)

    def lose(self, entry: Entry, time_ns: int) -> None:
        """Take out a request that is lost, with its blocks."""
        request_id = entry.request.id
        if request_id in self.decoding:
            self.leave(entry)
        elif request_id in self.prefilling:
            del self.prefilling[request_id]
        else:
            self.waiting.remove(request_id)
        self.free_blocks(entry, time_ns)
        self.host_blocks -= entry.host_blocks
        entry.host_blocks = 0
        self.lost_rows += sum(run.decodes for run in entry.runs)
        self.skipped_tokens -= entry.skipped
        entry.stay(time_ns)
        entry.move(Phase.LOST, time_ns)

    def close_run(self, entry: Entry, first_tick: int) -> None:
        """Write down the token times of an uninterrupted run."""
        entry.runs.append(TokenRun(entry.run_first_ns, first_tick, self.tick))

    def reserve(self, time_ns: int) -> None:
        """Take the blocks that the decode iteration starting now needs."""
        tick, size = self.tick, self.setup.limits.block_size
        growing = [due for due in self._growing.pop(tick, ()) if due.holds]
        for due in growing:
            self.take_blocks(due.entry, 1, time_ns)
        if growing:
            self._growing.setdefault(tick + size, []).extend(growing)

    def decoded(self, end_ns: int) -> Sequence[Entry]:
        """End a decode iteration; returns those who now owe nothing."""
        self.ends_ns.append(end_ns)
        return [d.entry for d in self._stopping.pop(self.tick, ()) if d.holds]


class _Due(NamedTuple):
    """A date in the calendar of a run of a request; void once it is over."""

    entry: Entry
    run: int

    @property
    def holds(self) -> bool:
        entry = self.entry
        return entry.phase is Phase.DECODING and entry.runs_begun == self.run
