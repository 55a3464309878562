"""Strict reader of Mooncake's traces, which say what prompts have in common.

JSON Lines of ``timestamp`` (ms), ``input_length``, ``output_length`` and ``hash_ids``,
one number for each 512 tokens of the prompt, of which the last may be fewer: equal
numbers are equal tokens after an equal prefix (Qin et al., "Mooncake", FAST'25, section
4.1; kvcache-ai/Mooncake, FAST25-release). Other keys are ignored. Nothing is said of
outputs, so no prompt is found to begin with an earlier prompt and its answer further
than whole 512 tokens of the former.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from sim.input_csv import GZIP_SUFFIX
from sim.input_lines import json_lines
from sim.prefix import Prefix, SegmentChain
from sim.units import NS_PER_MS
from workloads.limits import MAX_REQUESTS, MAX_TIME_S, MAX_TOKENS
from workloads.trace import Trace, bad_value

HASH_TOKENS: Final = 512
TIME: Final = "timestamp"
INPUT: Final = "input_length"
OUTPUT: Final = "output_length"
HASHES: Final = "hash_ids"
_SUFFIX: Final = ".jsonl"
_MS_PER_S: Final = 1000
_MAX_TIME_MS: Final = MAX_TIME_S * _MS_PER_S
_MAX_HASH: Final = 2**63 - 1


def is_mooncake(path: str) -> bool:
    """Whether a file of this name is read here."""
    return path.lower().removesuffix(GZIP_SUFFIX).endswith(_SUFFIX)


def read_mooncake(path: str) -> Trace:
    """Read and check a trace (UTF-8, BOM and CRLF accepted).

    Args:
        path: File to read, unpacked if its name ends in .gz.

    Returns:
        Its rows, at least one.

    Raises:
        ConfigError: On the first thing wrong, naming file, line, key and value.
    """
    times = [0]
    prompts: list[int] = []
    outputs: list[int] = []
    prefixes: list[Prefix] = []
    chain, line = SegmentChain(), 1
    for line, row in json_lines(Path(path)):
        if len(prompts) == MAX_REQUESTS:
            raise bad_value(path, line, "rows", "more", f"at most {MAX_REQUESTS}")
        read = _Row(path, line, row)
        times.append(read.time_ns(times[-1]))
        prompts.append(read.tokens(INPUT))
        outputs.append(read.tokens(OUTPUT))
        prefixes.append(read.prefix(chain, prompts[-1]))
    if not prompts:
        raise bad_value(path, line, "rows", 0, "at least 1")
    return Trace(
        path=path,
        arrival_ns=np.array(times[1:], dtype=np.int64),
        prompt_tokens=np.array(prompts, dtype=np.int64),
        output_tokens=np.array(outputs, dtype=np.int64),
        prefixes=prefixes,
    )


class _Row:
    """One object of a file, checked key by key."""

    def __init__(self, path: str, line: int, row: Mapping[str, Any]) -> None:
        self._at = (path, line)
        self._row = row

    def time_ns(self, last_ns: int) -> int:
        value = self._value(TIME)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= _MAX_TIME_MS:
            raise bad_value(
                *(*self._at, TIME, value, f"milliseconds in 0..{_MAX_TIME_MS:g}")
            )
        time_ns: int = round(value * NS_PER_MS)
        if time_ns < last_ns:
            allowed = f"sorted times, here >= {last_ns / NS_PER_MS!r}"
            raise bad_value(*self._at, TIME, value, allowed)
        return time_ns

    def tokens(self, key: str) -> int:
        value = self._value(key)
        if not _is_integer(value) or not 1 <= value <= MAX_TOKENS:
            allowed = f"an integer in 1..{MAX_TOKENS}"
            raise bad_value(*self._at, key, value, allowed)
        return int(value)

    def prefix(self, chain: SegmentChain, prompt_tokens: int) -> Prefix:
        value = self._value(HASHES)
        blocks = -(-prompt_tokens // HASH_TOKENS)
        if not isinstance(value, list) or len(value) != blocks:
            allowed = f"a list of {blocks}, one for each {HASH_TOKENS} tokens"
            raise bad_value(*self._at, HASHES, value, allowed)
        for item in value:
            if not _is_integer(item) or not 0 <= item <= _MAX_HASH:
                allowed = f"integers in 0..{_MAX_HASH}"
                raise bad_value(*self._at, HASHES, item, allowed)
        last = prompt_tokens - (blocks - 1) * HASH_TOKENS
        return chain.prefix(value, [HASH_TOKENS] * (blocks - 1) + [last])

    def _value(self, key: str) -> Any:
        if key not in self._row:
            allowed = f"objects with {TIME}, {INPUT}, {OUTPUT}, {HASHES}"
            raise bad_value(*self._at, key, "missing", allowed)
        return self._row[key]


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
