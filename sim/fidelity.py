"""What a run says of its fidelity: how far kernels on streams differ from a sum."""

from __future__ import annotations

from typing import Any

from sim.config import Config
from sim.machine.pricer import FidelityMeter
from sim.units import s_from_ns

Summary = dict[str, Any]


def fidelity_summary(config: Config, meter: FidelityMeter | None) -> Summary:
    """Keys of ``result.json``; None where the closed form ran.

    ``fidelity_difference`` is the time of all iterations over that of the closed form
    for the same plans, less 1. ``hidden_communication_fraction`` is the share of the
    time of collectives in which the GPUs also compute.
    """
    names = {"fidelity": config.engine.fidelity, "overlap": config.engine.overlap}
    if meter is None:
        keys = ("kernel_events", "iterations_s", "closed_form_s")
        unknown = (*keys, "fidelity_difference", "hidden_communication_fraction")
        return {**names, **dict.fromkeys(unknown)}
    hidden_ns = meter.communication_ns - meter.exposed_ns
    return {
        **names,
        "kernel_events": meter.events,
        "iterations_s": s_from_ns(meter.kernel_ns),
        "closed_form_s": s_from_ns(meter.iteration_ns),
        "fidelity_difference": _ratio(
            meter.kernel_ns - meter.iteration_ns, meter.iteration_ns
        ),
        "hidden_communication_fraction": _ratio(hidden_ns, meter.communication_ns),
    }


def fidelity_note(summary: Summary) -> str:
    """Two lines for the terminal; empty where the closed form ran."""
    difference = summary["fidelity_difference"]
    if difference is None:
        return ""
    hidden = summary["hidden_communication_fraction"]
    beside = (
        "" if hidden is None else f"\n{hidden:.1%} of the time of collectives is hidden"
    )
    return (
        f"kernel fidelity, overlap {summary['overlap']}:"
        f" {summary['kernel_events']:,} kernel events\niterations take"
        f" {summary['iterations_s']:.3f} s, in closed form"
        f" {summary['closed_form_s']:.3f} s ({difference:+.2%}){beside}"
    )


def _ratio(amount: int, per: int) -> float | None:
    return amount / per if per else None
