"""Types of the configuration's values: strict, finite and bounded.

The upper bounds are far above use; they keep times below 2**63 ns and arrays in memory,
so that a slip of the keyboard is an error message and not a hang.
"""

from __future__ import annotations

import math
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

MIN_RATE: Final = 1e-3
MAX_RATE: Final = 1e9


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("unprintable character")
    return text


def _none_from_text(value: object) -> object:
    """TOML has no null, so "none" switches a key off."""
    return None if value == "none" else value


def _inf_from_text(value: object) -> object:
    return math.inf if value == "inf" else value


def _finite_rate_or_inf(rate: float) -> float:
    if MIN_RATE <= rate <= MAX_RATE or rate == math.inf:
        return rate
    raise ValueError("rate out of range")


def _text_from_inf(rate: float) -> float | str:
    """JSON has no infinity."""
    return "inf" if math.isinf(rate) else rate


# the widest integer of TOML
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
MicroBatches = Annotated[int, Field(ge=1, le=1024)]
# vLLM's hybrid models come to blocks of some thousand tokens
BlockTokens = Annotated[int, Field(ge=1, le=8192)]
Replicas = Annotated[int, Field(ge=1, le=10_000)]
Extra = Annotated[int, Field(ge=0, le=1_000_000)]
Gain = Annotated[float, Field(ge=0, le=1e3)]
Affinity = Annotated[float, Field(ge=0, le=1)]
Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
CacheTokens = Annotated[int, Field(ge=1, le=10**12)]
Requests = Annotated[int, Field(ge=1, le=10_000_000)]
Scale = Annotated[float, Field(gt=0, le=100)]
Fraction = Annotated[float, Field(gt=0, le=1)]
# of the SMs of a GPU, of which it has about a hundred
Share = Annotated[float, Field(ge=0.01, le=0.99)]
RangeRatio = Annotated[float, Field(ge=0, lt=1)]
# a normal deviate of a double stays below 9, and exp(10 * 9) far inside a double
Sigma = Annotated[float, Field(ge=0, le=10)]
Milliseconds = Annotated[float, Field(gt=0, le=1e9)]
Seconds = Annotated[float, Field(ge=1e-9, le=1e9)]
# an exponential law reaches 50 times its mean
Turns = Annotated[float, Field(ge=1, le=1000)]
StartupSeconds = Annotated[float, Field(ge=0, le=1e6)]
ThinkSeconds = Annotated[float, Field(ge=0, le=1e6)]
Burstiness = Annotated[float, Field(ge=1e-3, le=1e6)]
Gibibytes = Annotated[float, Field(gt=0, le=1e6)]
Watts = Annotated[float, Field(gt=0, le=1e5)]
Usd = Annotated[float, Field(ge=0, le=1e6)]
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_printable)
]
Rate = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(_inf_from_text),
    AfterValidator(_finite_rate_or_inf),
    PlainSerializer(_text_from_inf, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": MIN_RATE, "maximum": MAX_RATE},
                {"const": "inf"},
            ]
        }
    ),
]
OrNone = BeforeValidator(_none_from_text)
"""Marks a key that may be None, written "none" in a TOML file."""
