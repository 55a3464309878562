"""The command ``servescope run``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from reports.trace import MAX_EVENTS, TRACE_FILE
from sim.build import Machine
from sim.build_fidelity import check_traceable
from sim.cli_output import print_json, progress, warn
from sim.cli_pools import pools_note, pools_table
from sim.config import Config
from sim.config_pipeline import micro_batches
from sim.errors import ConfigError
from sim.fidelity import fidelity_note
from sim.memory import memory_note, memory_of
from sim.policies import policy_label
from sim.recording import Recording
from sim.results import make_directory, replayable, write_run
from sim.runner import PreparedRun, prepare, run_prepared
from sim.statistics import quantile_interval, required_for_quantile
from sim.summary import Summary
from sim.units import ms_from_ns

_P99: Final = 0.99
_STATISTICS: Final = ("mean", "median", "p90", "p99")
# Key of vllm bench serve, name, unit and milliseconds in it.
_LATENCIES: Final = (
    ("ttft", "TTFT", "s", 1e3),
    ("tpot", "TPOT", "ms", 1.0),
    ("itl", "ITL = TBT", "ms", 1.0),
    ("e2el", "E2E", "s", 1e3),
)
# Name, key, factor and unit.
_FIGURES: Final = (
    ("Request throughput", "request_throughput", 1.0, "req/s"),
    ("Goodput", "request_goodput", 1.0, "req/s"),
    ("SLO attainment", "slo_attainment", 100.0, "%"),
    ("Output throughput", "output_throughput", 1.0, "tokens/s"),
    ("Total throughput", "total_token_throughput", 1.0, "tokens/s"),
    ("Energy", "energy_per_token_j", 1e3, "mJ/token"),
    ("Energy per output token", "energy_per_output_token_j", 1.0, "J/token"),
    ("Mean power, all GPUs", "mean_power_w", 1.0, "W"),
    ("HBM traffic", "hbm_bytes", 1e-12, "TB"),
    ("  of it expert weights", "expert_weight_bytes", 1e-12, "TB"),
    ("Cost", "usd_per_million_tokens", 1.0, "USD/million tokens"),
)


def run_command(
    config: Config,
    out: Path,
    *,
    as_json: bool,
    quiet: bool,
    iterations: bool,
    check: bool = False,
    trace: bool = False,
    recording: Recording = Recording.ITERATIONS,
) -> None:
    """Run a configuration, write its files to ``out`` and print a short table.

    Raises:
        ConfigError: If it cannot run, before anything is written.
        SimulationError: If the scheduler or the engine breaks an invariant.
    """
    if iterations and not recording.iterations:
        raise ConfigError(
            f"--iterations with --record {recording}; allowed: --record iterations"
        )
    if trace:
        check_traceable(config)
    prepared = prepare(config)
    make_directory(out)
    if not quiet:
        typer.echo(start_note(prepared), err=as_json)
    total = len(prepared.workload.requests)
    with (
        progress("requests", total, quiet=quiet) as one_more,
        replayable(config, out),
    ):
        result = run_prepared(
            prepared, one_more, check=check, trace=trace, recording=recording
        )
    write_run(out, result, iterations=iterations)
    warn([result.summary])
    if result.trace is not None:
        _warn_of_cut(result.trace["otherData"])
    if as_json:
        print_json(result.summary)
    elif not quiet:
        _print_tables(result.summary)
        if recording.requests:
            ttft_ms = result.tables.requests.columns["ttft_ms"]
            typer.echo(p99_note(np.asarray(ttft_ms)))
        typer.echo(f"written: {out}")


def _warn_of_cut(trace: dict[str, Any]) -> None:
    """Say what a trace leaves out, so that nobody takes its end for the run's."""
    left = [(trace[f"{what}_left_out"], what) for what in ("iterations", "requests")]
    if words := [f"the last {count} {what}" for count, what in left if count]:
        typer.echo(
            f"warning: {TRACE_FILE} leaves out {' and '.join(words)}: it holds at most"
            f" {MAX_EVENTS} events",
            err=True,
        )


def start_note(prepared: PreparedRun) -> str:
    """What the engine's log would say at start: kernels, KV cache, host overhead."""
    config, machine = prepared.config, prepared.machine
    block_size = config.engine.block_size
    host = machine.profile.host
    if prepared.machines.pools:
        return (
            f"{machine.model.name} ({machine.dtype}), {policy_label(config)}, profile"
            f" {machine.profile.name}\n{pools_note(prepared.machines)}"
        ).rstrip()
    return (
        f"{machine.model.name} ({machine.dtype}), {config.parallel.replicas}"
        f" replica(s) of {machine.power.num_gpus} x {machine.gpu.name}\n"
        f"{_stages_note(config, machine)}"
        f"scheduler {policy_label(config)}, profile {machine.profile.name},"
        f" kernels of {machine.tables}\n"
        f"KV cache per replica: {machine.num_blocks} blocks of {block_size} ="
        f" {machine.num_blocks * block_size} tokens\n"
        f"{memory_note(memory_of(config, machine))}\n"
        f"host overhead (ms): {ms_from_ns(host.decode_ns):.2f} decode,"
        f" {ms_from_ns(host.mixed_ns):.2f} with prefill,"
        f" {ms_from_ns(host.layered_ns):.2f} in a layer group"
    )


def _stages_note(config: Config, machine: Machine) -> str:
    """Layers of each pipeline stage; empty without a pipeline."""
    if machine.deployment.pp == 1:
        return ""
    layers = " + ".join(str(stage.layers) for stage in machine.deployment.stages)
    in_flight = micro_batches(config.parallel, config.engine)
    return (
        f"pipeline of {machine.deployment.pp} stages x {machine.deployment.tp} GPUs,"
        f" {layers} layers, up to {in_flight} micro-batches in flight;"
        " memory is that of the fullest stage\n"
    )


def _print_tables(summary: Summary) -> None:
    typer.echo(
        f"{summary['completed']} of {summary['num_prompts']} requests of"
        f" {summary['dataset']} in {summary['duration']:.1f} s,"
        f" {summary['preemptions']} preemptions\n"
    )
    Console().print(latency_table(summary), figure_table(summary), sep="\n")
    if (pools := pools_table(summary)) is not None:
        Console().print(pools)
    if note := fidelity_note(summary):
        typer.echo(note)


def p99_note(ttft_ms: npt.NDArray[np.float64]) -> str:
    """The interval of the p99 TTFT, or that there are too few requests for one."""
    interval = quantile_interval(ttft_ms, _P99)
    if math.isnan(interval.low):
        return (
            f"p99: too few requests for an interval, {interval.count} of"
            f" {required_for_quantile(_P99)}"
        )
    low, high = interval.low / 1e3, interval.high / 1e3
    return f"p99 TTFT: {low:.2f} to {high:.2f} s (95 % interval, order statistics)"


def latency_table(summary: Summary) -> Table:
    """Mean, median and tails of each latency."""
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    table.add_column("Latency")
    for statistic in _STATISTICS:
        table.add_column(statistic, justify="right")
    for key, name, unit, ms in _LATENCIES:
        values = [summary[f"{statistic}_{key}_ms"] for statistic in _STATISTICS]
        table.add_row(f"{name} ({unit})", *(_text(value, 1 / ms) for value in values))
    return table


def figure_table(summary: Summary) -> Table:
    """Throughput, SLOs, energy, traffic and cost."""
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for name, key, factor, unit in _FIGURES:
        table.add_row(name, _text(summary[key], factor), unit)
    on = summary["mean_replicas_on"]
    if on is not None and on < summary["replicas"]:
        table.add_row("Replicas on, mean", _text(on, 1.0), "")
        table.add_row("Replica starts", str(summary["replica_starts"]), "")
        table.add_row("Requests sent again", str(summary["retries"]), "")
    hit_rate = summary["prefix_cache_hit_rate"]
    if hit_rate is not None:
        table.add_row("Prefix cache hit rate", _text(hit_rate, 100.0), "%")
    if "swapped_out" in summary:
        table.add_row("Swapped to the host", str(summary["swapped_out"]), "requests")
        moved = summary["swapped_out_bytes"] + summary["swapped_in_bytes"]
        table.add_row("Copied to it and back", _text(moved, 1e-9), "GB")
        table.add_row("Waiting for copies", _text(summary["swap_s"], 1.0), "s")
    return table


def _text(value: float | None, factor: float) -> str:
    return "-" if value is None else f"{value * factor:.2f}"
