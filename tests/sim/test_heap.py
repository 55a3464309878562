"""Garbage is collected after a run, and not by walking through everything within it."""

from __future__ import annotations

import gc
import weakref

import pytest

from sim.shell.heap import no_full_collections


def test_thresholds_are_as_before_whatever_happens() -> None:
    before = gc.get_threshold()
    with no_full_collections():
        assert gc.get_threshold()[:2] == before[:2]
        with no_full_collections():
            assert gc.get_threshold()[2] == 2**31 - 1
        assert gc.get_threshold()[2] == 2**31 - 1
    assert gc.get_threshold() == before
    with pytest.raises(ZeroDivisionError), no_full_collections():
        _fail()
    assert gc.get_threshold() == before


def _fail() -> None:
    raise ZeroDivisionError


class Node:
    """Refers to itself, so that counting references does not free it."""

    def __init__(self) -> None:
        self.me = self
        self.ballast = [[k] for k in range(1000)]


def test_what_many_blocks_leave_behind_is_collected() -> None:
    """Without any call of the collector: 400 blocks of 1,000 lists each."""
    alive: list[weakref.ref[Node]] = []
    for _ in range(400):
        node = Node()
        with no_full_collections():
            kept = [[k] for k in range(1000)]
        alive.append(weakref.ref(node))
        del node, kept
    assert sum(ref() is not None for ref in alive) < 200


def test_the_old_are_not_walked_through_in_the_block() -> None:
    full = gc.get_stats()[2]["collections"]
    with no_full_collections():
        kept = [[k] for k in range(500_000)]
    assert gc.get_stats()[2]["collections"] == full
    assert len(kept) == 500_000
