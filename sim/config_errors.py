"""The words of a configuration error: key, value, what is allowed; always one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sim.errors import ConfigError

_LONGEST_VALUE: Final = 60
_LONGEST_COMPARED: Final = 256
_WIDEST_INT_BITS: Final = 128
_BOUNDS: Final = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
}
_NOUNS: Final = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "null": '"none"',
}


class ConfigKeyError(ConfigError):
    """A value that is not allowed, said before it is known where it came from.

    ``load_config`` puts the file or the command line in front.

    Attributes:
        key: Dotted key, as in ``engine.max_num_seqs``.
        value: The value refused.
        allowed: What is allowed, a phrase such as "must be an integer >= 1".
        related: Other keys the rule reads; the source of the first one set is named
            when ``key`` itself was left at its default.
    """

    def __init__(
        self, key: str, value: object, allowed: str, related: tuple[str, ...] = ()
    ) -> None:
        super().__init__(key, value, allowed, related)
        self.key = key
        self.value = value
        self.allowed = allowed
        self.related = related

    def __str__(self) -> str:
        return f"{clip(self.key)} = {value_text(self.value)}: {self.allowed}"


def one_line(text: str) -> str:
    """The text with every unprintable character (line ends too) escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def clip(text: str, longest: int = _LONGEST_VALUE) -> str:
    """The text on one line, its end left out when it is long."""
    line = one_line(text[: longest + 1])
    if len(line) <= longest:
        return line
    return f"{line[:longest]}... ({len(text)} characters)"


def value_text(value: object) -> str:
    """The value about as its file spells it, on one line."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, str):
        return f'"{clip(value)}"'
    if isinstance(value, int) and value.bit_length() > _WIDEST_INT_BITS:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return clip(str(value))


def did_you_mean(word: str, known: Iterable[str], quote: str) -> str:
    """`"; did you mean X?"` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word[:_LONGEST_COMPARED].lower(), list(known), 1)
    return f"; did you mean {quote}{near[0]}{quote}?" if near else ""


def one_of(value: object, allowed: Iterable[str]) -> str:
    """What is allowed where a name must be one of a few."""
    names = list(allowed)
    listed = ", ".join(f'"{name}"' for name in names)
    hint = did_you_mean(value, names, '"') if isinstance(value, str) else ""
    return f"must be one of {listed}{hint}"


def allowed_text(schema: Mapping[str, Any], value: object) -> str:
    """What a key's JSON Schema allows, in words, so that both always agree."""
    options = schema.get("anyOf", [schema])
    if len(options) == 1 and "enum" in schema:
        return one_of(value, schema["enum"])
    return "must be " + ", or ".join(_option_text(option) for option in options)


def _option_text(schema: Mapping[str, Any]) -> str:
    if "const" in schema:
        return f'"{schema["const"]}"'
    if schema["type"] == "string":
        longest = schema["maxLength"]
        return f"a string of {schema['minLength']} to {longest} printable characters"
    bounds = [
        f"{sign} {schema[word]:.15g}"
        if isinstance(schema[word], float)
        else f"{sign} {schema[word]}"
        for word, sign in _BOUNDS.items()
        if word in schema
    ]
    return " ".join([_NOUNS[schema["type"]], " and ".join(bounds)]).rstrip()
