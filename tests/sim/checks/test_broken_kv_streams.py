"""One thing wrong in a recorded run whose KV caches move while they are computed."""

from __future__ import annotations

from functools import cache

import pytest

from sim.errors import InvariantError
from sim.events import Event, Stalled
from sim.kv_stream import (
    LAYER_WISE,
)
from sim.transfer_events import (
    PartSent,
    StreamStarted,
    StreamWithdrawn,
    TransferEnded,
)
from tests.sim.checks.streams import (
    Breaks,
    Events,
    altered,
    hold,
    nth,
    without,
)
from tests.sim.pricing import (
    Scenario,
    limits,
    requests,
)
from tests.sim.tape import Tape
from tests.sim.test_disaggregation import disaggregated

# A message takes 8 ns + 1 per token (4 layers of it) inside a node of two replicas.
from tests.sim.test_kv_streams import LINKS


@cache
def _recorded() -> tuple[Event, ...]:
    """Two prompts and one that ends at once, through one slot."""
    tape = Tape()
    work = requests((0, 100, 3), (0, 50, 2), (0, 40, 1), (0, 40, 2))
    case = Scenario(work, limits(max_num_seqs=2), replicas=2)
    disaggregated("orca", case, links=LINKS, tape=tape, kv_transfer=LAYER_WISE)
    assert tape.of(Stalled)
    return tuple(tape.events)


def changed(kind: type, n: int = 0, **changes: int) -> Breaks:
    def broken(events: Events) -> Events:
        at = nth(events, kind, n)
        new = {key: getattr(events[at], key) + by for key, by in changes.items()}
        return altered(events, at, **new)

    return broken


BROKEN: dict[str, tuple[str, Breaks]] = {
    "a part is larger than what there is": (
        "transfer-conservation",
        changed(PartSent, layer_tokens=10_000),
    ),
    "a part is lost": (
        "transfer-conservation",
        lambda events: without(events, nth(events, PartSent, 1)),
    ),
    "it is faster than the link": (
        "transfer-conservation",
        changed(PartSent, end_ns=-1),
    ),
    "it is sent over a busy link": (
        "transfer-conservation",
        changed(PartSent, begin_ns=-1, end_ns=-1),
    ),
    "it arrives before its last part": (
        "transfer-conservation|clock-order",
        changed(TransferEnded, time_ns=-1),
    ),
    "half a prompt is to come": (
        "transfer-conservation|kv-sufficiency",
        changed(StreamStarted, tokens=-50),
    ),
    "nobody took slot and blocks": (
        "lifecycle|conservation|work",
        lambda events: without(events, nth(events, StreamStarted)),
    ),
    "one that is done is still to come": (
        "request-conservation|lifecycle|work-conservation",
        lambda events: without(events, nth(events, StreamWithdrawn)),
    ),
    "a request is withdrawn while it is prefilled": (
        "lifecycle|transfer-conservation",
        changed(StreamWithdrawn, request_id=1),
    ),
}


def test_the_recorded_stream_keeps_every_law() -> None:
    hold(list(_recorded()))


@pytest.mark.parametrize("name", BROKEN)
def test_one_thing_wrong_is_found(name: str) -> None:
    law, breaks = BROKEN[name]
    with pytest.raises(InvariantError, match=law):
        hold(breaks(list(_recorded())))
