"""What a scheduler may know: queues, progress and free memory, never output lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sim.errors import InvariantError
from sim.plan import StepPlan


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A request in the waiting queue.

    ``tokens`` must be prefilled before its next token: the prompt, plus whatever it
    had generated when it was preempted (``resumed`` is true then). ``client`` is who
    sent it. A ``swapped`` one is not prefilled: its KV blocks are on the host, and the
    engine brings them back before it plans; until then nobody overtakes it.
    """

    id: int
    tokens: int
    resumed: bool = False
    client: int = 0
    swapped: bool = False


class Queued(Protocol):
    """A queue to look at, in the order of admission."""

    def __len__(self) -> int:
        """Requests in it."""
        ...

    def __iter__(self) -> Iterator[QueuedRequest]:
        """From the front."""
        ...


@dataclass(slots=True)
class PrefillState:
    """Progress of one admitted prompt; only the engine writes it.

    Attributes:
        id: Request id.
        tokens: Tokens to prefill in all.
        computed: Tokens that went through every layer.
        chunk: Tokens in flight between two layers, 0 when none are.
        layers_done: Layers the chunk in flight went through.
    """

    id: int
    tokens: int
    computed: int = 0
    chunk: int = 0
    layers_done: int = 0

    @property
    def remaining(self) -> int:
        """Prompt tokens that no layer has seen yet."""
        return self.tokens - self.computed - self.chunk


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The engine's options, in vLLM's words, and how the model's layers are split.

    ``stage_ends`` are the layers after which stages of a pipeline end, the last one
    included; empty is one stage.
    """

    num_layers: int
    max_num_batched_tokens: int
    max_num_seqs: int
    max_model_len: int
    block_size: int
    stage_ends: tuple[int, ...] = ()

    def stage_end(self, layer: int) -> int:
        """End of the stage that holds ``layer``."""
        return next((end for end in self.stage_ends if end > layer), self.num_layers)

    def blocks(self, tokens: int) -> int:
        """KV blocks that hold ``tokens`` tokens."""
        return -(-tokens // self.block_size)

    def reject_reason(self, prompt_tokens: int) -> str | None:
        """Why no policy can serve a prompt of this length, or None."""
        longest = self.max_model_len - 1
        if prompt_tokens <= longest:
            return None
        limit = f"max_model_len - 1 = {longest}"
        return f"prompt of {prompt_tokens} tokens exceeds {limit}"


class Fit(NamedTuple):
    """What admitting a waiting request takes.

    Attributes:
        cached_tokens: Tokens found in the prefix cache, which its first chunk skips.
        blocks: KV blocks that nobody holds yet.
    """

    cached_tokens: int
    blocks: int


class Sharing(Protocol):
    """What requests would share with others, on a replica with a prefix cache."""

    def fits(self) -> Callable[[QueuedRequest], Fit]:
        """Fits of requests admitted together, asked for one after the other."""
        ...

    def freed(self) -> Iterator[int]:
        """KV blocks nobody would hold any more as each decoding request is evicted.

        Newest first, each after those before it.
        """
        ...


class SchedulerView(NamedTuple):  # quicker to make than a frozen dataclass
    """One replica as its scheduler sees it, before an iteration.

    Attributes:
        waiting: Waiting requests as the queue discipline orders them; preempted ones
            in front.
        prefilling: Admitted prompts that are not finished, oldest first.
        num_decoding: Requests that decode one token per iteration.
        decode_blocks: KV blocks those need for the coming token.
        free_blocks: KV blocks nobody holds.
        stored_tokens: KV tokens of the decoding requests together.
        incoming: Sequences whose KV cache is on its way here; each has its slot and
            blocks already.
        newest_decoding: Iterates (request id, KV tokens stored) of the decoding
            requests, newest first.
        sharing: What prefix caching changes; None without.
    """

    waiting: Queued
    prefilling: Sequence[PrefillState]
    num_decoding: int
    decode_blocks: int
    free_blocks: int
    newest_decoding: Callable[[], Iterator[tuple[int, int]]]
    stored_tokens: int = 0
    incoming: int = 0
    sharing: Sharing | None = None

    def fits(self, limits: EngineLimits) -> Callable[[QueuedRequest], Fit]:
        """What admitting each of some requests, in this order, takes."""
        if self.sharing is not None:
            return self.sharing.fits()
        return lambda queued: Fit(0, limits.blocks(queued.tokens))

    def evictions(self, limits: EngineLimits) -> Iterator[tuple[int, int, int]]:
        """Decoding requests, newest first, as they would be evicted.

        (request id, KV tokens stored, KV blocks that this frees).
        """
        members = self.newest_decoding()
        if self.sharing is None:
            return ((i, stored, limits.blocks(stored)) for i, stored in members)
        freed = self.sharing.freed()
        return ((*member, f) for member, f in zip(members, freed, strict=True))


class Scheduler(Protocol):
    """A policy: a pure function from a view to the plan of one iteration.

    ``steady`` promises that the answer "decodes only" stays the answer until a request
    arrives or finishes or KV blocks run short, so that the engine need not ask again;
    a policy that keeps no count of its own and admits whenever it can is.
    ``stall_free`` promises that every decoding request advances in every iteration;
    the engine checks the promise on every plan. ``work_conserving`` promises that no
    iteration leaves the first waiting request out if a sequence slot, KV blocks and
    token budget are there for its whole prompt; a policy that waits on purpose says
    False.
    """

    @property
    def steady(self) -> bool:
        """Whether a plan of decodes only repeats until something else happens."""
        ...

    @property
    def stall_free(self) -> bool:
        """Whether each plan decodes every decoding request in all layers."""
        ...

    @property
    def work_conserving(self) -> bool:
        """Whether the first waiting request enters as soon as there is room."""
        ...

    def plan(self, view: SchedulerView) -> StepPlan:
        """Plan one iteration; only called when there is work."""
        ...

    def reject_reason(self, prompt_tokens: int) -> str | None:
        """Why a prompt of this length can never be scheduled, or None."""
        ...


def ask(scheduler: Scheduler, view: SchedulerView) -> StepPlan:
    """A scheduler's plan.

    Raises:
        InvariantError: If it reads more than it is shown.
    """
    try:
        return scheduler.plan(view)
    except AttributeError as error:
        breach = _knowledge_error(error)
        if breach is None:
            raise
        raise breach from error


def _knowledge_error(error: AttributeError) -> InvariantError | None:
    """What a policy did that read more than it is shown, or None if it did not.

    Nothing it is shown has a true output length; this says so in words, and costs
    nothing until a policy tries.
    """
    shown = error.obj
    if not isinstance(shown, QueuedRequest | PrefillState | SchedulerView):
        return None
    return InvariantError(
        "knowledge-boundary",
        f"a policy reads {error.name} of a {type(shown).__name__}, which may say"
        f" {', '.join(type(shown).__annotations__)} only",
        request_id=None if isinstance(shown, SchedulerView) else shown.id,
    )
