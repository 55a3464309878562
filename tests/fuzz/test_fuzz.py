"""Whatever users feed it, the simulator says one clear line or works.

Within a second of processor time and 200 MB per input; `tests.fuzz.targets` lists what
is read and what must hold of what is accepted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SAY
from tests.fuzz.harness import inputs, run_many
from tests.fuzz.limits import TooSlowError, limited
from tests.fuzz.targets import TARGETS

SAMPLE = 400
LONG = 100_000
PARTS = 8


def test_a_sample_of_fuzzed_inputs(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every target, a few seconds."""
    start = time.monotonic()
    tally = run_many(inputs(SAMPLE), tmp_path)
    record_property(SAY, tally.line(time.monotonic() - start))
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.outcomes.total() == SAMPLE
    for target in TARGETS:
        assert tally.outcomes[target, "accepted"] + tally.outcomes[target, "refused"]


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_many_fuzzed_inputs(
    part: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """100,000 in eight parts; every target both accepts and refuses some."""
    start = time.monotonic()
    count = LONG // PARTS
    tally = run_many(inputs(count, first=part * count), tmp_path)
    record_property(
        SAY, f"part {part + 1}/{PARTS}: {tally.line(time.monotonic() - start)}"
    )
    assert not tally.failures, "\n".join(tally.failures[:20])
    assert tally.outcomes.total() == count
    for target in TARGETS:
        assert tally.outcomes[target, "accepted"] > 0
        assert tally.outcomes[target, "refused"] > 0


def for_ever() -> None:
    while True:
        pass


def test_the_limits_are_enforced() -> None:
    """Too slow, too large: both end in an exception that no reader catches."""
    with pytest.raises(TooSlowError), limited(cpu_s=0.05):
        for_ever()
    with pytest.raises(MemoryError), limited(memory_bytes=50_000_000):
        bytearray(100_000_000)
