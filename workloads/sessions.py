"""Sessions of several turns, each of which begins with all that was said before."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.errors import ConfigError
from sim.prefix import Prefix
from sim.units import NS_PER_S
from workloads.limits import MAX_REQUESTS, MAX_TOKENS
from workloads.spec import WorkloadSpec
from workloads.streams import stream

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Turns:
    """Requests in columns, session after session, turn after turn.

    Attributes:
        session: Which session each belongs to.
        prompt_tokens: All that was said before, and the new prompt.
        output_tokens: Lengths of the answers.
        think_ns: From the end of the turn before; -1 for first turns.
        prefixes: The conversation up to the end of the answer.
    """

    session: Int64
    prompt_tokens: Int64
    output_tokens: Int64
    think_ns: Int64
    prefixes: tuple[Prefix, ...]

    def first(self, n: int) -> Turns:
        """The first ``n`` requests."""
        return Turns(
            self.session[:n],
            self.prompt_tokens[:n],
            self.output_tokens[:n],
            self.think_ns[:n],
            self.prefixes[:n],
        )


def draw_turns(
    spec: WorkloadSpec, draw: Callable[[int], tuple[Int64, Int64]], sessions: int
) -> Turns:
    """The turns of some sessions, at most ``spec.num_requests`` of them.

    A session has a geometric number of turns (after each one it goes on with the same
    chance) and exponential think times, as the terminals of an interactive closed
    queueing network (Lazowska et al., "Quantitative System Performance", 1984). It also
    ends before the turn that would not fit in the context. Turn k of a session is the
    same whatever the rate and the number of requests.

    Args:
        spec: The workload.
        draw: Lengths of so many new prompts and answers.
        sessions: How many begin.

    Raises:
        ConfigError: If there would be more requests than a workload may have.
    """
    counts = _counts(spec, sessions)
    total, wanted = int(counts.sum()), spec.num_requests
    if wanted is None:
        return _turns(spec, draw, counts)
    most = wanted
    while True:  # what the context cuts short is made up for by further sessions
        turns = _turns(
            spec, draw, np.diff(np.minimum(np.cumsum(counts), most), prepend=0)
        )
        if len(turns.prefixes) >= wanted or most >= total:
            return turns.first(wanted)
        most *= 2


def _turns(
    spec: WorkloadSpec, draw: Callable[[int], tuple[Int64, Int64]], counts: Int64
) -> Turns:
    """So many turns of each session, but those that do not fit."""
    total = int(counts.sum())
    new, output = draw(total)
    mean_ns = spec.session_turn_delay_mean_s * NS_PER_S
    thinks = stream(spec.seed, "think_time").exponential(mean_ns, total)
    lengths = zip(new.tolist(), output.tolist(), np.rint(thinks).tolist(), strict=True)
    longest = min(spec.context_tokens or MAX_TOKENS, MAX_TOKENS)
    numbers = tuple(array("q") for _ in range(4))
    prefixes: list[Prefix] = []
    for session, turns in enumerate(counts.tolist()):
        rows = [next(lengths) for _ in range(turns)]
        for row, prefix in _conversation(rows, len(prefixes), longest):
            for column, number in zip(numbers, (session, *row), strict=True):
                column.append(number)
            prefixes.append(prefix)
    session_of, prompt, answer, think = (np.array(n, dtype=np.int64) for n in numbers)
    return Turns(session_of, prompt, answer, think, tuple(prefixes))


def _counts(spec: WorkloadSpec, sessions: int) -> Int64:
    """Turns of each session, before any is cut short by the context."""
    chance = 1 / spec.session_turns_mean
    counts: Int64 = stream(spec.seed, "session_turns").geometric(chance, sessions)
    if spec.num_requests is None and counts.sum() > MAX_REQUESTS:
        raise ConfigError(
            f"workload.session_turns_mean: {spec.session_turns_mean} in {sessions}"
            f" sessions; allowed: at most {MAX_REQUESTS} requests in all"
        )
    return counts


def _conversation(
    rows: list[tuple[int, int, float]], number: int, longest: int
) -> Iterator[tuple[tuple[int, int, int], Prefix]]:
    """((prompt, output, think time), prefix) of the turns that fit.

    Segments are prompts and answers in turn; those of request ``number`` are 2 number
    and 2 number + 1, so that no two sessions share any.
    """
    segments: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    context = 0
    for turn, (new, output, think) in enumerate(rows):
        prompt = context + new
        context = prompt + output
        if turn and context > longest:
            return
        first = 2 * (number + turn)
        segments, ends = (*segments, first, first + 1), (*ends, prompt, context)
        yield (prompt, output, round(think) if turn else -1), Prefix(segments, ends)
