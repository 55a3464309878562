"""From files, ``--set`` and flags to a checked configuration, or one clear line.

Values are gathered by dotted key together with where they came from, later sources
over earlier ones (flag > ``--set`` > file > default), then validated at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from sim.config import SECTIONS, Config
from sim.config_errors import ConfigKeyError, allowed_text, clip, did_you_mean, one_line
from sim.config_pools import POOLS, PoolConfig, check_pool_key
from sim.config_syntax import parse_toml, read_table
from sim.errors import ConfigError
from sim.pools import counted

OVERRIDE_SOURCE: Final = "--set"
FLAG_SOURCE: Final = "command line"
DEFAULT_SOURCE: Final = "defaults"
_LONGEST_TEXT: Final = 200
_NO_FLAGS: Final[Mapping[str, object]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Setting:
    """A value as given, and the words for where it was given."""

    value: object
    source: str


_Settings = dict[str, _Setting]


@dataclass(frozen=True, slots=True)
class Layer:
    """A table of settings, as one source gives it.

    Attributes:
        table: As read from TOML or JSON: sections of keys.
        source: What errors call the source.
        folder: Where its relative paths start.
    """

    table: Mapping[str, Any]
    source: str
    folder: Path = Path()


def load_config(
    path: Path | None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, object] = _NO_FLAGS,
    check: Callable[[Config], None] | None = None,
) -> Config:
    """Gather a configuration; flag > override > file > default.

    Args:
        path: TOML or JSON file, told apart by suffix; None for defaults.
        overrides: ``key=value`` texts of ``--set``; a value is read as TOML, and taken
            as a plain string when it is not.
        flags: Values by dotted key; None means that the flag was not given.
        check: Further checks that raise ConfigKeyError, such as ``check_names``; the
            value's source is put before their message.

    Returns:
        The configuration; paths, and ``model.name`` if it ends in .json, are
        absolute: relative to the file's folder, or to the working directory when
        given by ``--set`` or a flag.

    Raises:
        ConfigError: One line ``source: key = value: what is allowed``.
    """
    layers = [] if path is None else [file_layer(path)]
    layers += override_layers(overrides)
    given = {key: value for key, value in flags.items() if value is not None}
    layers.append(Layer(nested(given), FLAG_SOURCE))
    return layered_config(layers, check)


def layered_config(
    layers: Sequence[Layer], check: Callable[[Config], None] | None = None
) -> Config:
    """The configuration that layers make together, later ones over earlier ones.

    Args:
        layers: Where values come from; what none of them sets has its default.
        check: As for :func:`load_config`.

    Raises:
        ConfigError: One line ``source: key = value: what is allowed``.
    """
    settings: _Settings = {}
    for layer in layers:
        settings |= _gather(layer.table, layer.source, layer.folder)
    return _build(settings, check)


def file_layer(path: Path) -> Layer:
    """The settings of a TOML or JSON file.

    Raises:
        ConfigError: If it cannot be read.
    """
    return Layer(read_table(path), one_line(str(path)), path.parent)


def override_layers(overrides: Sequence[str]) -> list[Layer]:
    """One layer for each ``key=value`` text of ``--set``.

    Raises:
        ConfigError: If a text has no equals sign.
    """
    return [Layer(_parse_override(text), OVERRIDE_SOURCE) for text in overrides]


def nested(settings: Mapping[str, object]) -> dict[str, Any]:
    """Values by dotted key as sections of keys."""
    table: dict[str, Any] = {}
    for key, value in settings.items():
        section, dot, name = key.partition(".")
        if dot:
            table.setdefault(section, {})[name] = value
        else:
            table[key] = value
    return table


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        shown = clip(text, _LONGEST_TEXT)
        raise ConfigError(f"{OVERRIDE_SOURCE}: {shown}: must be key=value")
    return nested({key.strip(): _toml_or_text(value.strip())})


def _toml_or_text(text: str) -> object:
    try:
        table = parse_toml(f"value = {text}")
    except ValueError:
        return text
    return table["value"] if len(table) == 1 else text


def _gather(table: Mapping[str, Any], source: str, folder: Path) -> _Settings:
    """Settings of a table by dotted key; relative paths are taken from ``folder``."""
    try:
        return {
            key: _Setting(_absolute(key, value, folder), source)
            for key, value in _flatten(table)
        }
    except ConfigKeyError as problem:
        raise ConfigError(f"{source}: {problem}") from None


def _flatten(table: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Dotted keys and values; refuses keys that do not exist."""
    for key, value in table.items():
        if key not in Config.model_fields:
            raise _unknown(key, value, None)
        if key == POOLS:
            yield from _flatten_pools(value)
            continue
        if key not in SECTIONS:
            yield key, value
            continue
        if not isinstance(value, dict):
            raise ConfigKeyError(key, value, f"must be a table [{key}]")
        for name, item in value.items():
            if name not in SECTIONS[key].model_fields:
                raise _unknown(name, item, key)
            yield f"{key}.{name}", item


def _flatten_pools(pools: object) -> Iterator[tuple[str, object]]:
    """The keys of tables ``[pools.NAME]``, or of ``NAME.key`` on a command line."""
    if not isinstance(pools, dict):
        raise ConfigKeyError(POOLS, pools, f"must be tables [{POOLS}.NAME]")
    for word, value in pools.items():
        name, dot, key = word.partition(".")
        check_pool_key(name, value)
        if not (dot or isinstance(value, dict)):
            allowed = f"must be a table [{POOLS}.{name}]"
            raise ConfigKeyError(f"{POOLS}.{name}", value, allowed)
        for own, item in {key: value}.items() if dot else value.items():
            if own not in PoolConfig.model_fields:
                hint = did_you_mean(own, PoolConfig.model_fields, "'")
                known = f"; known keys: {', '.join(PoolConfig.model_fields)}"
                raise ConfigKeyError(
                    f"{POOLS}.{name}.{own}",
                    item,
                    f"unknown key '{clip(own)}' in [{POOLS}.{name}]{hint or known}",
                )
            yield f"{POOLS}.{name}.{own}", item


def _unknown(name: str, value: object, section: str | None) -> ConfigKeyError:
    known = Config.model_fields if section is None else SECTIONS[section].model_fields
    homes = [
        f"{table}.{name}"
        for table, model in SECTIONS.items()
        if name in model.model_fields
    ]
    hint = f"; did you mean '{homes[0]}'?" if homes else did_you_mean(name, known, "'")
    where = "at the top level" if section is None else f"in [{section}]"
    return ConfigKeyError(
        name if section is None else f"{section}.{name}",
        value,
        f"unknown key '{clip(name)}' {where}"
        + (hint or f"; known keys: {', '.join(known)}"),
    )


def _absolute(key: str, value: object, folder: Path) -> object:
    """Absolute paths, so that a written configuration runs from any folder."""
    if not isinstance(value, str) or not value:
        return value
    paths = (
        *("workload.path", "calibration.data_dir", "moe.statistics"),
        "cluster.outages",
    )
    is_trace = key in paths and value not in ("none", "preset")
    is_model = key == "model.name" and value.endswith(".json")
    is_anchor = key == "calibration.profile" and value.endswith(".toml")
    if not (is_trace or is_model or is_anchor) or os.path.isabs(value):
        return value
    return os.path.abspath(os.path.join(folder, value))


def _build(settings: _Settings, check: Callable[[Config], None] | None) -> Config:
    table = nested({key: setting.value for key, setting in settings.items()})
    try:
        config = counted(Config.model_validate(table))
        if check is not None:
            check(config)
    except ValidationError as error:
        problem = _first_problem(error, settings)
    except ConfigKeyError as error:
        problem = error
    else:
        return config
    raise ConfigError(f"{_source(problem, settings)}: {problem}")


def _first_problem(error: ValidationError, settings: _Settings) -> ConfigKeyError:
    """The first value that pydantic refused, in our words."""
    details = error.errors(include_url=False, include_context=False)
    where = [str(part) for part in details[0]["loc"][:3]]
    if where[0] == POOLS:
        schema, name = PoolConfig.model_json_schema(), where[2]
    else:
        where = where[:2]
        schema, name = SECTIONS.get(where[0], Config).model_json_schema(), where[-1]
    key = ".".join(where)
    rule = schema["properties"][name]
    value = settings[key].value
    return ConfigKeyError(key, value, allowed_text(rule, value))


def _source(problem: ConfigKeyError, settings: _Settings) -> str:
    for key in (problem.key, *problem.related):
        if key in settings:
            return settings[key].source
    return DEFAULT_SOURCE
