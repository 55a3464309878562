"""What a first reader wants to know: what was gained, what it cost, how sure it is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from reports.frame import BASELINE, CANDIDATE
from reports.html.accuracy import Accuracy, measured_gains
from reports.html.chances import Interval, own_interval, paired_interval
from reports.html.quantities import HEADLINES, QUANTITIES, Quantity, number_text
from reports.html.study import Run, Study

_EQUAL: Final = 0.02
"""Relative change of a total that counts as none: how long the last requests take
moves totals by so much."""
_MOST_WHAT_IFS: Final = 6
_SUBSTANTIAL_EXTRAPOLATION: Final = 0.05


@dataclass(frozen=True, slots=True)
class Card:
    """One quantity of a load.

    Attributes:
        quantity: Which.
        value: Of the candidate, or of the only policy.
        reference: Of the baseline; empty where there is none.
        change: Relative change in %, or in percentage points.
        verdict: "better", "worse", "equal" or "unclear"; empty without a baseline.
        interval: What is known of chance, in words.
        phrase: All of it as part of a sentence.
    """

    quantity: Quantity
    value: str
    reference: str
    change: str
    verdict: str
    interval: str
    phrase: str


def cards_of(run: Run, baseline: Run | None) -> list[Card]:
    """The headline cards of a run, against a baseline if there is one."""
    quantities = (QUANTITIES[key] for key in HEADLINES)
    return [
        _alone(quantity, run) if baseline is None else _against(quantity, run, baseline)
        for quantity in quantities
        if math.isfinite(quantity.value(run.summary))
    ]


def _alone(quantity: Quantity, run: Run) -> Card:
    chance = own_interval(run, quantity.key)
    words = "no interval within one run"
    if chance is not None:
        words = f"95 % interval {_from_to(chance, quantity)}"
    value = quantity.text(run.summary)
    return Card(quantity, value, "", "", "", words, f"{quantity.title} {value}")


def _against(quantity: Quantity, run: Run, baseline: Run) -> Card:
    old, new = quantity.value(baseline.summary), quantity.value(run.summary)
    points = quantity.unit == "%"
    relative = (new - old) / old if old else math.nan
    change = (
        f"{number_text(new - old, 1, '+')} points" if points else _percent(relative)
    )
    chance = paired_interval(run, baseline, quantity.key)
    verdict = _verdict(quantity, new - old, relative, chance)
    interval = "no interval within one run"
    if chance is not None:
        interval = f"difference {_from_to(chance, quantity, '+')}, 95 % interval"
    value = quantity.text(run.summary)
    reference = quantity.text(baseline.summary)
    return Card(
        quantity,
        value,
        reference,
        change,
        verdict,
        interval,
        f"{quantity.title} {change} ({value} against {reference} {quantity.unit})",
    )


def _verdict(
    quantity: Quantity, difference: float, relative: float, chance: Interval | None
) -> str:
    if chance is not None and difference != 0:
        if abs(chance.mean) <= chance.half:
            return "unclear"
    elif not abs(relative) > _EQUAL:
        return "equal"
    return "better" if (difference < 0) == quantity.less else "worse"


def _from_to(chance: Interval, quantity: Quantity, sign: str = "") -> str:
    low, high = chance.mean - chance.half, chance.mean + chance.half
    texts = [
        number_text(value * quantity.factor, quantity.decimals, sign)
        for value in (low, high)
    ]
    unit = "points" if sign and quantity.unit == "%" else quantity.unit
    return f"{texts[0]} to {texts[1]} {unit}"


def _percent(share: float) -> str:
    return f"{number_text(100 * share, 1, '+')} %" if math.isfinite(share) else "-"


@dataclass(frozen=True, slots=True)
class Digest:
    """The answer in short, as lists of phrases: gained, cost, unclear, how sure."""

    gained: list[str]
    cost: list[str]
    unclear: list[str]
    sure: list[str]


def digest_of(study: Study, load: str, accuracy: Accuracy) -> Digest | None:
    """What the candidate gained over the baseline at a load; None without both."""
    candidate = study.candidate
    run = None if candidate is None else study.run(candidate, load)
    baseline = study.run(study.baseline, load)
    if run is None or baseline is None:
        return None
    cards = cards_of(run, baseline)
    return Digest(
        gained=[card.phrase for card in cards if card.verdict == "better"],
        cost=[*_worse(cards), *_overheads(run, baseline), *_elsewhere(study, load)],
        unclear=[card.phrase for card in cards if card.verdict == "unclear"],
        sure=[*how_sure([run, baseline], accuracy), *_gains(run, baseline)],
    )


def _gains(run: Run, baseline: Run) -> list[str]:
    """Where the difference itself was measured, how it compares."""
    if (run.scheduler, baseline.scheduler) != (CANDIDATE, BASELINE):
        return []
    pairs = [
        f"{row['metric']} {_percent(row['measured'])} measured,"
        f" {_percent(row['predicted'])} predicted"
        for row in measured_gains(run.summary).to_dict("records")
    ]
    if not pairs:
        return ["The difference between the policies was not measured here."]
    return [f"The difference itself was measured on this engine: {'; '.join(pairs)}."]


def _worse(cards: Iterable[Card]) -> list[str]:
    worse = [card.phrase for card in cards if card.verdict == "worse"]
    return worse or ["none of the quantities above is worse at this load"]


def _overheads(run: Run, baseline: Run) -> list[str]:
    """What rises without showing in a latency."""
    lines = []
    for key, words in (
        ("iterations", "iterations, each with its host overhead"),
        ("energy_wait_j", "energy spent waiting for hosts and collectives"),
        ("preemptions", "preemptions"),
    ):
        old, new = (float(r.summary.get(key) or 0.0) for r in (baseline, run))
        if old > 0 and new / old - 1 > _EQUAL:
            lines.append(f"{words}: {_percent(new / old - 1)}")
    return lines


def _elsewhere(study: Study, load: str) -> list[str]:
    lines = []
    for other in study.loads:
        run = study.run(study.candidate or "", other)
        baseline = study.run(study.baseline, other)
        if other == load or run is None or baseline is None:
            continue
        worse = [c.phrase for c in cards_of(run, baseline) if c.verdict == "worse"]
        lines += [f"at {other}: {phrase}" for phrase in worse]
    return lines


def how_sure(runs: Iterable[Run], accuracy: Accuracy) -> list[str]:
    """What stands behind the numbers: chance, measured errors, extrapolation."""
    lines = [
        "Intervals are 95 %, by batch means over the requests of one simulated load;"
        " they cover chance in that load, not the model's own error."
    ]
    lines += measured_lines(accuracy)
    shares = [run.summary.get("extrapolated_fraction") or 0.0 for run in runs]
    words = (
        "outside profiled kernel timings, where rooflines stand in"
        if max(shares) > _SUBSTANTIAL_EXTRAPOLATION
        else "outside profiled kernel timings"
    )
    lines.append(f"{100 * max(shares):.1f} % of the simulated time lies {words}.")
    return lines


def what_if_lines(knobs: Iterable[tuple[str, object]]) -> list[str]:
    """Which results are of no machine that was profiled, a line each.

    Args:
        knobs: Name of a result, and ``what_if`` of its ``result.json``.
    """
    lines = [
        f"What-if, not a machine that was profiled: {name}, {text}."
        for name, text in dict.fromkeys(knobs)
        if isinstance(text, str) and text
    ]
    more = len(lines) - _MOST_WHAT_IFS
    return lines[:_MOST_WHAT_IFS] + ([f"What-if: {more} more."] if more > 0 else [])


def measured_lines(accuracy: Accuracy) -> list[str]:
    """How far off predictions of the same regime were where it was measured."""
    if not accuracy.likeness:
        return [
            "No measurement of this engine, nor of this model and GPU, is among the"
            " measured cases: how far off these numbers are is not known."
        ]
    held_out = accuracy.groups()
    held_out = held_out[held_out["kind"] == "validation"]
    if held_out.empty:
        return [
            f"Measured cases of {accuracy.likeness} are calibration only (some constant"
            " has seen them): the error on unseen runs is not known."
        ]
    ranges = [
        f"{row['group']} {_percent(row['lowest'])} to {_percent(row['highest'])}"
        for row in held_out.to_dict("records")
    ]
    return [
        f"Against measurements of {accuracy.likeness} that no constant has seen,"
        f" predictions are off by: {'; '.join(ranges)} (table at the end)."
    ]
