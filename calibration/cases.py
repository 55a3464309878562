"""The registry of measured serving cases, ``data/cases.toml``: facts with citations."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

from calibration.case import (
    METRICS,
    Case,
    Measurement,
    NotSimulatable,
    RequestLog,
    Setup,
)
from calibration.protocols import PROTOCOLS
from sim.errors import ConfigError

_FILE: Final = "data/cases.toml"


@cache
def cases() -> tuple[Case, ...]:
    """Every case of the registry.

    Raises:
        ConfigError: If the registry is malformed.
    """
    found = tuple(_case(entry) for entry in _entries("case"))
    ids = [case.id for case in found]
    if repeated := {name for name in ids if ids.count(name) > 1}:
        raise _bad(min(repeated), "id", "twice", "each id once")
    return found


def select_cases(pattern: str | None) -> tuple[Case, ...]:
    """Cases whose id matches a shell pattern, or contains a plain text; None: all.

    Raises:
        ConfigError: If there is none.
    """
    if pattern is None:
        return cases()
    wild = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    chosen = tuple(case for case in cases() if fnmatchcase(case.id, wild))
    if not chosen:
        ids = ", ".join(case.id for case in cases())
        raise ConfigError(f"--only = {pattern}: no such case; allowed: {ids}")
    return chosen


@cache
def request_logs() -> Mapping[str, RequestLog]:
    """Known per-request logs by file name."""
    return MappingProxyType({e["file"]: _log(e) for e in _entries("request_log")})


@cache
def not_simulatable() -> tuple[NotSimulatable, ...]:
    """Measured cases left out, with the reason."""
    return tuple(
        NotSimulatable(entry["id"], entry["source"], entry["reason"])
        for entry in _entries("not_simulatable")
    )


def _log(entry: dict[str, Any]) -> RequestLog:
    leave_out = tuple(entry.pop("leave_out", ()))
    file, source = entry.pop("file"), entry.pop("source")
    note, case = entry.pop("note", ""), entry.pop("case", file)
    return RequestLog(file, source, note, case, _setup(file, entry), leave_out)


def _case(entry: dict[str, Any]) -> Case:
    name = entry.pop("id")
    protocol = dict(entry.pop("protocol"))
    kind = protocol.pop("kind")
    if kind not in PROTOCOLS:
        raise _bad(name, "protocol.kind", kind, f"one of {', '.join(PROTOCOLS)}")
    if isinstance(rates := protocol.get("request_rates"), list):
        protocol["request_rates"] = tuple(rates)
    try:
        loaded = PROTOCOLS[kind](**protocol)
    except TypeError as error:
        raise _bad(name, "protocol", protocol, str(error)) from None
    return Case(
        id=name,
        source=entry.pop("source"),
        note=entry.pop("note", ""),
        protocol=loaded,
        overloaded=entry.pop("overloaded", False),
        measurements=tuple(_measurement(name, m) for m in entry.pop("metrics")),
        setup=_setup(name, entry),
    )


def _setup(name: str, entry: dict[str, Any]) -> Setup:
    try:
        setup = Setup(**entry)
    except TypeError as error:
        raise _bad(name, "setup", sorted(entry), str(error)) from None
    if setup.num_gpus != setup.tp * setup.replicas:
        raise _bad(name, "num_gpus", setup.num_gpus, "tp x replicas")
    return setup


def _measurement(name: str, entry: Mapping[str, Any]) -> Measurement:
    metric, value, unit = entry["metric"], entry["value"], entry["unit"]
    if metric not in METRICS:
        raise _bad(name, "metric", metric, f"one of {', '.join(METRICS)}")
    if unit != METRICS[metric].unit:
        raise _bad(name, f"unit of {metric}", unit, METRICS[metric].unit)
    if not value > 0:
        raise _bad(name, metric, value, "a value > 0")
    return Measurement(metric, float(value), unit, tuple(entry.get("seen_by", ())))


def _entries(kind: str) -> list[dict[str, Any]]:
    """Tables of one kind: what a case says over what its group says."""
    document = _document()
    groups: Mapping[str, dict[str, Any]] = document["group"]
    return [
        groups.get(entry.get("group", ""), {})
        | {key: value for key, value in entry.items() if key != "group"}
        for entry in document[kind]
    ]


def _bad(name: str, key: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{_FILE}: {name}: {key} = {value}; allowed: {allowed}")


@cache
def _document() -> Mapping[str, Any]:
    text = resources.files("calibration").joinpath(_FILE).read_text(encoding="utf-8")
    return MappingProxyType(tomllib.loads(text))
