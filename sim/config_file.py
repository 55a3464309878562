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
from sim.config_syntax import parse_toml, read_table
from sim.errors import ConfigError

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
        The configuration; ``workload.path``, and ``model.name`` if it ends in .json,
        are absolute: relative to the file's folder, or to the working directory when
        given by ``--set`` or a flag.

    Raises:
        ConfigError: One line ``source: key = value: what is allowed``.
    """
    settings: _Settings = {}
    if path is not None:
        settings |= _gather(read_table(path), one_line(str(path)), path.parent)
    for text in overrides:
        settings |= _gather(_parse_override(text), OVERRIDE_SOURCE, Path())
    given = {key: value for key, value in flags.items() if value is not None}
    for key, value in given.items():
        settings |= _gather(_nest(key, value), FLAG_SOURCE, Path())
    return _build(settings, check)


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        shown = clip(text, _LONGEST_TEXT)
        raise ConfigError(f"{OVERRIDE_SOURCE}: {shown}: must be key=value")
    return _nest(key.strip(), _toml_or_text(value.strip()))


def _toml_or_text(text: str) -> object:
    try:
        table = parse_toml(f"value = {text}")
    except ValueError:
        return text
    return table["value"] if len(table) == 1 else text


def _nest(key: str, value: object) -> dict[str, Any]:
    section, dot, name = key.partition(".")
    return {section: {name: value}} if dot else {section: value}


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
        if key not in SECTIONS:
            yield key, value
            continue
        if not isinstance(value, dict):
            raise ConfigKeyError(key, value, f"must be a table [{key}]")
        for name, item in value.items():
            if name not in SECTIONS[key].model_fields:
                raise _unknown(name, item, key)
            yield f"{key}.{name}", item


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
    is_trace = key in ("workload.path", "calibration.data_dir") and value != "none"
    is_model = key == "model.name" and value.endswith(".json")
    is_anchor = key == "calibration.profile" and value.endswith(".toml")
    if not (is_trace or is_model or is_anchor) or os.path.isabs(value):
        return value
    return os.path.abspath(os.path.join(folder, value))


def _build(settings: _Settings, check: Callable[[Config], None] | None) -> Config:
    nested: dict[str, Any] = {}
    for key, setting in settings.items():
        section, dot, name = key.partition(".")
        if dot:
            nested.setdefault(section, {})[name] = setting.value
        else:
            nested[key] = setting.value
    try:
        config = Config.model_validate(nested)
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
    key = ".".join(str(part) for part in details[0]["loc"][:2])
    section, _, name = key.partition(".")
    schema = SECTIONS.get(section, Config).model_json_schema()
    rule = schema["properties"][name or section]
    value = settings[key].value
    return ConfigKeyError(key, value, allowed_text(rule, value))


def _source(problem: ConfigKeyError, settings: _Settings) -> str:
    for key in (problem.key, *problem.related):
        if key in settings:
            return settings[key].source
    return DEFAULT_SOURCE
