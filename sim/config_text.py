"""A configuration as text: TOML to run it again, a hash to name it, its JSON Schema."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sim.config import SECTIONS, Config
from sim.config_pools import POOLS


def config_toml(config: Config) -> str:
    """The resolved configuration as TOML, every key written out.

    It loads back to ``config.resolved()``, provided that paths are absolute, as
    ``load_config`` makes them.
    """
    data = config.resolved().model_dump()
    pools = data.pop(POOLS)
    lines = [_line(key, value) for key, value in data.items() if key not in SECTIONS]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        lines += [_line(key, value) for key, value in data[section].items()]
    for name, pool in pools.items():
        lines += ["", f"[{POOLS}.{name}]"]
        lines += [_line(key, value) for key, value in pool.items()]
    return "\n".join(lines) + "\n"


def config_sha256(config: Config) -> str:
    """Hash of the resolved configuration: of its JSON with sorted keys, no spaces.

    Pools count in their order, and only where there are any.
    """
    data = config.resolved().model_dump(mode="json")
    if pools := data.pop(POOLS):
        data[POOLS] = list(pools.items())
    canonical = json.dumps(
        data,
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a configuration file, TOML or JSON."""
    schema = Config.model_json_schema()
    for table in schema["$defs"].values():
        for field in table.get("properties", {}).values():
            _allow_none_text(field)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _allow_none_text(field: dict[str, Any]) -> None:
    options = field.get("anyOf", [])
    if {"type": "null"} in options:
        options.append({"const": "none"})


def _line(key: str, value: object) -> str:
    return f"{key} = {_toml(value)}"


def _toml(value: object) -> str:
    """One value; JSON spells strings as TOML does, since they are printable."""
    if value is None:
        return '"none"'
    if isinstance(value, str | bool):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
