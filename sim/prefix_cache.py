"""KV blocks that outlive their request: found again by what they hold, LRU eviction."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sim.prefix import Prefix
from sim.view import Fit, QueuedRequest


class PrefixCache:
    """Which whole blocks of a replica hold what, and who holds them.

    Automatic prefix caching of vLLM (blocks under chained hashes, of which the least
    recently used that nobody holds goes first, the last block of a prefix before those
    it builds on) with one change after SGLang's RadixAttention (arXiv 2312.07104): who
    completes a block that is there already gives its own copy back, so that equal
    blocks exist once.

    A block enters when it has been through all layers: those of a prompt with the chunk
    that completes them, those of an output when their request leaves the batch.

    The cache counts blocks, the engine owns them. Methods that change who holds what
    return how many blocks nobody holds any more (negative: how many fewer).

    Attributes:
        block_size: Tokens in a block.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._holders: dict[int, int] = {}  # of blocks that requests hold, by key
        self._unheld: OrderedDict[int, None] = OrderedDict()  # oldest first
        self._held: dict[int, int] = {}  # blocks from the first on, by request

    def __len__(self) -> int:
        """Blocks that can be found."""
        return len(self._holders) + len(self._unheld)

    def matched(self, prefix: Prefix, tokens: int) -> int:
        """Leading blocks that are there, of a prompt of ``tokens`` tokens.

        Its last token is always computed, for somebody must emit the next one. A block
        is there only if all before it are, so bisection finds the first that is not.
        """
        size = self.block_size
        most = prefix.blocks(tokens - 1, size)

        def missing(block: int) -> bool:
            key = prefix.key(block, size)
            return key not in self._holders and key not in self._unheld

        return bisect_left(range(most), True, key=missing)

    def unheld(self, prefix: Prefix, blocks: int, pinned: set[int]) -> int:
        """How many of the first ``blocks`` blocks, all there, nobody holds or pinned.

        Pins them.
        """
        keys = prefix.keys(0, blocks, self.block_size)
        fresh = [k for k in keys if k in self._unheld and k not in pinned]
        pinned.update(fresh)
        return len(fresh)

    def hold(self, request_id: int, prefix: Prefix, blocks: int) -> int:
        """Let a new request hold the first ``blocks`` blocks, which are all there."""
        taken = 0
        for key in prefix.keys(0, blocks, self.block_size):
            taken += self._take(key)
        self._held[request_id] = blocks
        return -taken

    def _take(self, key: int) -> bool:
        """Hold a block that is there; whether nobody did."""
        if key in self._unheld:
            del self._unheld[key]
            self._holders[key] = 1
            return True
        self._holders[key] += 1
        return False

    def complete(self, request_id: int, prefix: Prefix, tokens: int) -> int:
        """Take in the blocks of a request's first ``tokens`` tokens, which are ready.

        Where a block is there already the request holds that one, and not its own.
        """
        size, freed = self.block_size, 0
        held, ready = self._held.get(request_id, 0), prefix.blocks(tokens, size)
        for key in prefix.keys(held, ready, size):
            if key in self._holders or key in self._unheld:
                freed += not self._take(key)
            else:
                self._holders[key] = 1
        self._held[request_id] = max(held, ready)
        return freed

    def leave(self, request_id: int, prefix: Prefix, tokens: int) -> int:
        """Let go of all blocks of a request that stores ``tokens`` tokens.

        What can be found stays until room is short.
        """
        size = self.block_size
        freed = self.complete(request_id, prefix, tokens)
        held = self._held.pop(request_id)
        for key in reversed(list(prefix.keys(0, held, size))):
            if self._holders[key] > 1:
                self._holders[key] -= 1
            else:
                del self._holders[key]
                self._unheld[key] = None
                freed += 1
        return freed + -(-tokens // size) - held

    def leaving(
        self, members: Iterable[tuple[int, int]], prefix_of: Callable[[int], Prefix]
    ) -> Iterator[int]:
        """What :meth:`leave` would return for each (request id, tokens), in turn."""
        size = self.block_size
        gone: Counter[int] = Counter()
        for request_id, tokens in members:
            held = self._held.get(request_id, 0)
            keys = list(prefix_of(request_id).keys(0, held, size))
            gone.update(keys)
            last = sum(gone[key] == self._holders[key] for key in keys)
            yield -(-tokens // size) - held + last

    def trim(self, free_blocks: int) -> None:
        """Forget the least recently used blocks that do not fit in the free ones."""
        while len(self._unheld) > free_blocks:
            self._unheld.popitem(last=False)


@dataclass(frozen=True, slots=True)
class CacheView:
    """What a policy may know of a replica's prefix cache; a :class:`sim.view.Sharing`.

    Attributes:
        cache: The cache.
        prefix_of: What a request may share.
        decoding: Decoding requests with their KV tokens, newest first.
    """

    cache: PrefixCache
    prefix_of: Callable[[int], Prefix]
    decoding: Callable[[], Iterator[tuple[int, int]]]

    def fits(self) -> Callable[[QueuedRequest], Fit]:
        """Fits of requests admitted together; what one will hold is free no more."""
        cache, pinned = self.cache, set[int]()

        def fit(queued: QueuedRequest) -> Fit:
            """What a request finds cached, and the blocks that it takes."""
            prefix = self.prefix_of(queued.id)
            found = cache.matched(prefix, queued.tokens)
            cached = found * cache.block_size
            new = -(-(queued.tokens - cached) // cache.block_size)
            return Fit(cached, new + cache.unheld(prefix, found, pinned))

        return fit

    def freed(self) -> Iterator[int]:
        """KV blocks that evicting each decoding request frees, newest first."""
        return self.cache.leaving(self.decoding(), self.prefix_of)
