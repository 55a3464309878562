"""Reading TOML and JSON that may be anything at all: bounded, strict, never a crash."""

from __future__ import annotations

import json
import math
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, Final, NoReturn

from sim.config_errors import clip, one_line
from sim.errors import ConfigError
from sim.input_file import open_regular, reason

# A full configuration is 2 KiB. tomllib takes time quadratic in the parts of a dotted
# key, half a minute for a line of 64 KiB, hence the second limit.
MAX_FILE_BYTES: Final = 1 << 16
MAX_TOML_LINE: Final = 5000
_LONGEST_REASON: Final = 200
_TOO_DEEP: Final = "nested too deeply"


def read_table(path: Path) -> dict[str, Any]:
    """The top-level table of a TOML or JSON file.

    Raises:
        ConfigError: If the file cannot be read or is not what its suffix says.
    """
    source = one_line(str(path))
    parsers = {".toml": parse_toml, ".json": parse_json}
    parse = parsers.get(path.suffix.lower())
    if parse is None:
        raise ConfigError(f"{source}: must be a file that ends in .toml or .json")
    try:
        # a byte order mark is what some editors put first
        return parse(_read_bounded(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{source}: must be UTF-8; byte {error.start} is not"
        ) from None
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {reason(error)}") from None
    except ValueError as error:
        raise ConfigError(f"{source}: {clip(str(error), _LONGEST_REASON)}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """A TOML document.

    Raises:
        ValueError: If it is not TOML, has a line or nesting beyond reason, or a number
            that is no finite double.
    """
    if max(map(len, text.split("\n"))) > MAX_TOML_LINE:
        raise ValueError(f"not valid TOML: a line of over {MAX_TOML_LINE} characters")
    try:
        return tomllib.loads(text, parse_float=_parse_float)
    except RecursionError:
        raise ValueError(f"not valid TOML: {_TOO_DEEP}") from None
    except ValueError as error:
        raise ValueError(f"not valid TOML: {error}") from None


def parse_json(text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: If it is not JSON or no object, repeats a key, has NaN, Infinity, a
            number that is no finite double, or nesting beyond reason.
    """
    try:
        value = json.loads(
            text,
            parse_float=_parse_float,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique_keys,
        )
    except RecursionError:
        raise ValueError(f"not valid JSON: {_TOO_DEEP}") from None
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("not valid JSON: must be an object {...}")
    return value


def _read_bounded(path: Path) -> bytes:
    with open_regular(path) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"must be at most {MAX_FILE_BYTES} bytes")
    return data


def _parse_float(text: str) -> float:
    """Refuses 1e999, which Python reads as infinity; TOML's own word is inf."""
    value = float(text)
    if math.isinf(value) and "inf" not in text:
        raise ValueError(f"number {text} is too large")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"key {repeated!r} appears twice")
    return table
