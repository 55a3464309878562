"""A registry of cases with a slip in it is refused, naming the case and the key."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import pytest

from calibration import cases as registry
from sim.errors import ConfigError

Change = Callable[[dict[str, Any], dict[str, Any]], None]


def repeat(document: dict[str, Any], case: dict[str, Any]) -> None:
    document["case"].append(copy.deepcopy(case))


def unknown_kind(_: dict[str, Any], case: dict[str, Any]) -> None:
    case["protocol"] = {"kind": "closed-circuit"}


def odd_protocol_key(_: dict[str, Any], case: dict[str, Any]) -> None:
    case["protocol"] = {**case["protocol"], "speed": 1}


def odd_setup_key(_: dict[str, Any], case: dict[str, Any]) -> None:
    case["colour"] = "green"


def wrong_gpus(_: dict[str, Any], case: dict[str, Any]) -> None:
    case["num_gpus"] = 77


def unknown_metric(_: dict[str, Any], case: dict[str, Any]) -> None:
    case["metrics"] = [{"metric": "mean_joy", "value": 1.0, "unit": "ms"}]


def wrong_unit(_: dict[str, Any], case: dict[str, Any]) -> None:
    case["metrics"] = [{**case["metrics"][0], "unit": "furlong"}]


def no_value(_: dict[str, Any], case: dict[str, Any]) -> None:
    case["metrics"] = [{**case["metrics"][0], "value": 0.0}]


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The registry's document, to be changed; read afresh before and after."""
    text = resources.files("calibration").joinpath("data/cases.toml").read_text()
    loaded = tomllib.loads(text)
    for case in loaded["case"]:
        case.update(loaded["group"].get(case.pop("group", ""), {}) | case)
    monkeypatch.setattr(registry, "_document", lambda: loaded)
    registry.cases.cache_clear()
    yield loaded
    registry.cases.cache_clear()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (repeat, "id = twice; allowed: each id once"),
        (unknown_kind, "protocol.kind = closed-circuit; allowed: one of "),
        (odd_protocol_key, "speed"),
        (odd_setup_key, "colour"),
        (wrong_gpus, "num_gpus = 77; allowed: tp x replicas"),
        (unknown_metric, "metric = mean_joy; allowed: one of "),
        (wrong_unit, "= furlong; allowed: "),
        (no_value, "= 0.0; allowed: a value > 0"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_slip_is_named(document: dict[str, Any], change: Change, words: str) -> None:
    case = document["case"][0]
    name = case["id"]
    change(document, case)
    with pytest.raises(ConfigError) as refused:
        registry.cases()
    assert str(refused.value).startswith(f"data/cases.toml: {name}: ")
    assert words in str(refused.value)


def test_unchanged_it_is_the_registry(document: dict[str, Any]) -> None:
    """So the slips above are what is refused."""
    assert len(registry.cases()) == len(document["case"])
