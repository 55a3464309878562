"""Damage to valid inputs: typed (cells, keys, values) and blind (bytes)."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from random import Random
from typing import Any

WORDS = (
    *("", " ", "nan", "NaN", "inf", "-inf", "Infinity", "-1", "0", "-0.0", "1", "2"),
    *("0.5", "1e18", "1e308", "1e400", "-1e18", "1e-320", "9" * 400, "9" * 5000),
    *("1_0", "0x10", "0b1", "010", "+5", "1e", ".", "-", "true", "null", "none"),
    *("auto", "=1+1", "'", '"', '""', "\\", "\n", "\r", "\r\n", "\0", "\t", ",", ";"),
    *("é", "٣", "\u202e", "\ufeff", "\U0001f600", "a" * 300, "x" * 200_000),
    *("../../x", "/dev/zero", "/", "~", "%s%n{0}{}", "${HOME}", "$(id)", "!!python"),
    *("4294967296", "9223372036854775807", "9223372036854775808", str(2**127)),
)
_MANY = (0, 1, 1, 1, 2, 3)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 10**6, 10**9, 10**18, 2**63, 10**40),
    *(0.0, -0.0, 0.5, 1.5, 1e18, -1e18, 1e308, 5e-324),
    *(float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "x",
        "none",
        "inf",
        "nan",
        "auto",
        "\0",
        "\n",
        "\ud800",
        "é" * 50,
        "a" * 5000,
    ),
    *("../../x.json", "/dev/zero", "x.toml", "/etc", "sliding_attention", "fp8"),
    *([], [[]], {}, {"a": 1}, [1, 2, 3], [None] * 50, ["full_attention"] * 4),
)


def bytes_of(random: Random, content: bytes) -> bytes:
    """Blind damage: flips, cuts, repeats, other encodings, padding."""
    return random.choice(_BLIND)(random, content)


def csv_of(random: Random, content: bytes) -> bytes:
    """One to three cells, rows or columns changed; sometimes blind damage too."""
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(random.choice(_MANY)):
        random.choice(_TABLE)(random, rows)
    end = random.choice(("\n", "\n", "\n", "\r\n", "\r", "\n\n"))
    damaged = end.join(",".join(row) for row in rows)
    return _sometimes_blind(random, damaged.encode("utf-8", "replace"))


def tree_of(random: Random, tree: Any) -> Any:
    """A copy of a JSON tree with one to three values or keys changed."""
    tree = json.loads(json.dumps(tree))
    for _ in range(random.choice(_MANY)):
        holder, key = _place(random, tree)
        if holder is None:
            continue
        kind = random.random()
        if kind < 0.6:
            holder[key] = copy.deepcopy(random.choice(VALUES))
        elif kind < 0.75:
            del holder[key]
        elif kind < 0.85:
            holder[key] = [holder[key]]
        elif isinstance(holder, dict):
            holder[_typo(random, str(key))] = holder.pop(key)
    return tree


def json_of(random: Random, tree: Any) -> bytes:
    """A damaged tree as JSON text, with what only text can say wrong."""
    text = json.dumps(tree_of(random, tree))
    kind = random.random()
    if kind < 0.05:
        depth = random.choice((10, 1000, 20_000))
        text = text.replace(":", ": " + "[" * depth, 1)
    elif kind < 0.1 and text.startswith("{"):
        text = "{" + text[1:-1] + "," + text[1:]
    elif kind < 0.15:
        text = text.replace("1", random.choice(("1e999", "0" * 5000, "9" * 5000)), 1)
    return _sometimes_blind(random, text.encode("utf-8", "replace"))


def toml_of(random: Random, content: bytes) -> bytes:
    """One to three lines of ``key = value`` changed."""
    lines = content.decode().split("\n")
    for _ in range(random.choice(_MANY)):
        at = random.randrange(len(lines))
        key, equals, value = lines[at].partition(" = ")
        kind = random.random()
        if kind < 0.5 and equals:
            new = random.choice((_toml_word, _toml_value))(random)
            lines[at] = f"{key} = {new}"
        elif kind < 0.65 and equals:
            lines[at] = f"{_typo(random, key)} = {value}"
        elif kind < 0.75:
            del lines[at]
            lines = lines or [""]
        elif kind < 0.85:
            lines.insert(at, random.choice(lines))
        elif kind < 0.95:
            nest = random.choice(("[" * 3000, "{a=" * 900, ".a" * 2000, "[[a]]"))
            lines[at] = f"{key} = {nest}" if equals else nest
        else:
            lines[at] = random.choice(WORDS)
    return _sometimes_blind(random, "\n".join(lines).encode("utf-8", "replace"))


def packed_of(random: Random, content: bytes) -> bytes:
    """Packed by gzip, whole, cut or with a flipped byte."""
    packed = gzip.compress(content, 1, mtime=0)
    kind = random.random()
    if kind < 0.1:
        return packed[: random.randrange(len(packed))]
    if kind < 0.2:
        return _flip(random, packed)
    return packed if kind < 0.9 else content


def _sometimes_blind(random: Random, content: bytes) -> bytes:
    return bytes_of(random, content) if random.random() < 0.1 else content


def _toml_word(random: Random) -> str:
    return random.choice(WORDS)


def _toml_value(random: Random) -> str:
    value = random.choice(VALUES)
    text = json.dumps(value)
    return text.replace("NaN", "nan").replace("Infinity", "inf")


def _place(random: Random, tree: Any) -> tuple[Any, Any]:
    """A holder and a key or index in it, at any depth."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                places.append((node, key))
                walk(value)
        elif isinstance(node, list):
            for index, value in enumerate(node[:8]):
                places.append((node, index))
                walk(value)

    walk(tree)
    return random.choice(places) if places else (None, None)


def _typo(random: Random, word: str) -> str:
    at = random.randrange(len(word) + 1)
    return word[:at] + random.choice(("", "x", "_", "\0", ".", " ")) + word[at + 1 :]


def _cell(random: Random, rows: list[list[str]]) -> None:
    row = random.choice(rows)
    if row:
        row[random.randrange(len(row))] = random.choice(WORDS)


def _extra(random: Random, rows: list[list[str]]) -> None:
    row = random.choice(rows)
    row.insert(random.randrange(len(row) + 1), random.choice(WORDS))


def _shorter(random: Random, rows: list[list[str]]) -> None:
    row = random.choice(rows)
    if row:
        del row[random.randrange(len(row))]


def _twice(random: Random, rows: list[list[str]]) -> None:
    rows.insert(random.randrange(len(rows) + 1), list(random.choice(rows)))


def _gone(random: Random, rows: list[list[str]]) -> None:
    if len(rows) > 1:
        del rows[random.randrange(len(rows))]


def _swap(random: Random, rows: list[list[str]]) -> None:
    a, b = random.randrange(len(rows)), random.randrange(len(rows))
    rows[a], rows[b] = rows[b], rows[a]


def _column(random: Random, rows: list[list[str]]) -> None:
    at = random.randrange(len(rows[0]) + 1)
    word = random.choice(WORDS[:20])
    for row in rows:
        row[at:at] = [word]


def _quoted(random: Random, rows: list[list[str]]) -> None:
    row = random.choice(rows)
    if row:
        at = random.randrange(len(row))
        row[at] = random.choice(('"{}"', '"{}', '{}"', '"{}""', '"\n{}"')).format(
            row[at]
        )


def _flip(random: Random, content: bytes) -> bytes:
    if not content:
        return content
    damaged = bytearray(content)
    for _ in range(random.randint(1, 4)):
        damaged[random.randrange(len(damaged))] = random.randrange(256)
    return bytes(damaged)


def _cut(random: Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _drop(random: Random, content: bytes) -> bytes:
    at = random.randrange(len(content) + 1)
    return content[:at] + content[at + random.randint(1, 40) :]


def _insert(random: Random, content: bytes) -> bytes:
    at = random.randrange(len(content) + 1)
    junk = random.choice((random.randbytes(random.randint(1, 30)), b"\0" * 5000, b"\n"))
    return content[:at] + junk + content[at:]


def _repeat(random: Random, content: bytes) -> bytes:
    return content * random.choice((2, 3, 50))


def _padded(random: Random, content: bytes) -> bytes:
    pad = random.choice((b"\n", b" ", b"\0", b"[", b"{", b"a", b","))
    size = random.choice((1000, 70_000, 1_200_000))
    return content + pad * size if random.random() < 0.5 else pad * size + content


def _encoded(random: Random, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    encoding = random.choice(("utf-16", "utf-32", "utf-8-sig", "latin-1", "utf-7"))
    return text.encode(encoding, "replace")


def _noise(random: Random, _content: bytes) -> bytes:
    return random.randbytes(random.choice((0, 1, 10, 200)))


_BLIND: tuple[Callable[[Random, bytes], bytes], ...] = (
    *(_flip, _flip, _cut, _drop, _insert, _repeat, _padded, _encoded, _noise),
)
_TABLE: tuple[Callable[[Random, list[list[str]]], None], ...] = (
    *(_cell, _cell, _cell, _cell, _extra, _shorter, _twice, _gone, _swap, _column),
    _quoted,
)
