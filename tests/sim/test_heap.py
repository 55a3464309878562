"""Who freezes the heap, and when it thaws."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sim.shell import heap


def test_the_outermost_block_freezes_and_thaws(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    collector = SimpleNamespace(
        freeze=lambda: calls.append("freeze"), unfreeze=lambda: calls.append("unfreeze")
    )
    monkeypatch.setattr(heap, "gc", collector)
    monkeypatch.setattr(heap, "_HEAP", heap._Heap())
    with pytest.raises(ZeroDivisionError), heap.frozen_heap():
        _fail_inside(calls)
    assert calls == ["freeze", "unfreeze"]
    heap.freeze_for_good()
    assert calls == ["freeze", "unfreeze", "freeze"]
    with heap.frozen_heap():
        pass
    assert calls == ["freeze", "unfreeze", "freeze"]


def _fail_inside(calls: list[str]) -> None:
    assert calls == ["freeze"]
    with heap.frozen_heap():
        assert calls == ["freeze"]
    assert calls == ["freeze"]
    raise ZeroDivisionError
