"""The time of a pipeline: micro-batches one behind the other through all stages.

``times[s][j]`` is how long micro-batch j is on stage s, ``delays[s][j]`` how long it
then takes to the next stage, while stage s is free already; both in nanoseconds. Every
stage takes the micro-batches in order.
"""

from __future__ import annotations

from collections.abc import Sequence

Grid = Sequence[Sequence[int]]


def period_ns(times: Grid, delays: Grid) -> int:
    """The shortest whole time after which the same round can begin again, for ever.

    A micro-batch enters its next round when it has left the last stage, for it needs
    its new tokens, and a stage goes on to the next round when it has done this one. So
    a round takes at least the busiest stage, and at least the slowest micro-batch; or
    more where the two are in each other's way: it is the greatest mean of a cycle in
    the graph of these dependencies (Baccelli et al., Synchronization and Linearity,
    1992, theorem 3.23), rounded up.
    """
    columns = zip(zip(*times, strict=True), zip(*delays, strict=True), strict=True)
    passing = (sum(stages) + sum(ways) for stages, ways in columns)
    low: int = max(*passing, *map(sum, times))
    if _repeats(times, delays, low):
        return low
    high = sum(map(sum, times)) + sum(map(sum, delays))  # one after the other
    while high - low > 1:
        middle = (low + high) // 2
        if _repeats(times, delays, middle):
            high = middle
        else:
            low = middle
    return high


def _round(
    times: Grid, delays: Grid, free: Sequence[int], ready: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Ends of a round by stage and by micro-batch, if these begin no earlier."""
    free, ready = list(free), list(ready)
    for stage, (row, delay) in enumerate(zip(times, delays, strict=True)):
        for j, (time, after) in enumerate(zip(row, delay, strict=True)):
            free[stage] = max(free[stage], ready[j]) + time
            ready[j] = free[stage] + after
    return free, ready


def _repeats(times: Grid, delays: Grid, period: int) -> bool:
    """Whether rounds can begin a ``period`` apart.

    They can if some ends of a round, a period earlier, lead to themselves or less. From
    the ends of a first round on, these grow until they do, or for ever: a path without
    a cycle passes every stage and micro-batch once at most.
    """
    stages, micro_batches = len(times), len(times[0])
    free, ready = _round(times, delays, [0] * stages, [0] * micro_batches)
    for _ in range(stages + micro_batches):
        earlier = [end - period for end in free], [end - period for end in ready]
        later_free, later_ready = _round(times, delays, *earlier)
        grown_free = list(map(max, free, later_free))
        grown_ready = list(map(max, ready, later_ready))
        if (grown_free, grown_ready) == (free, ready):
            return True
        free, ready = grown_free, grown_ready
    return False
