"""The commands ``validate`` and ``calibrate fit``: measured beside predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from calibration.cases import not_simulatable, select_cases
from calibration.engine_profiles import EngineProfile, engine_profile
from reports.validation import (
    CASES_FILE,
    SUMMARY_FILE,
    number,
    plain_percent,
    signed_percent,
    write_validation_report,
)
from sim.cli_output import print_json, progress, records
from sim.error_summary import error_summary
from sim.files import write_csv_atomic
from sim.fit_host import CASES, fit_host
from sim.fit_profiles import fit_profiles
from sim.replay import Replay, load_replay, replay_errors, replay_summary
from sim.results import make_directory
from sim.validate import case_errors, micro_benchmark, needed_tasks

MICRO_FILE = "micro_benchmark.csv"
REPLAY_FILE = "replay.csv"
REPLAY_SUMMARY_FILE = "replay_summary.csv"


def validate_command(
    directory: Path,
    *,
    only: str | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Run measured cases; write CSV, Markdown and parity plot, and print the tables."""
    cases = select_cases(only)
    micro = None if only else micro_benchmark()
    make_directory(directory)
    runs = len(needed_tasks(cases, seeds))
    with progress("measured cases", runs, quiet=quiet) as on_done:
        errors = case_errors(cases, seeds, jobs, on_done)
    summary = error_summary(errors)
    write_csv_atomic(directory / CASES_FILE, errors)
    write_csv_atomic(directory / SUMMARY_FILE, summary)
    tables = {"cases": errors, "summary": summary}
    if micro is not None:
        write_csv_atomic(directory / MICRO_FILE, micro)
        tables["micro_benchmark"] = micro
    write_validation_report(directory)
    if as_json:
        print_json({name: records(frame) for name, frame in tables.items()})
    elif not quiet:
        _print_tables(errors, summary, micro)


def replay_command(
    directory: Path,
    log: Path,
    overrides: Sequence[str] = (),
    *,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Replay a per-request log; write and print signed errors by run, and averages."""
    replay = load_replay(log, overrides)
    make_directory(directory)
    with progress("runs", len(replay.runs), quiet=quiet) as on_done:
        errors = replay_errors(replay, on_done)
    summary = replay_summary(errors)
    write_csv_atomic(directory / REPLAY_FILE, errors)
    write_csv_atomic(directory / REPLAY_SUMMARY_FILE, summary)
    if as_json:
        print_json({"replay": records(errors), "summary": records(summary)})
    elif not quiet:
        _print_replay(log.name, replay, errors, summary)


def _print_replay(
    name: str, replay: Replay, errors: pd.DataFrame, summary: pd.DataFrame
) -> None:
    console = Console()
    table = _table(f"Replay of {name}", "measured", "predicted", "error")
    for row in records(errors):
        _add(table, row["run"], f"{row['statistic']} {row['metric']}, ms", row)
    console.print(table)
    for kind, part in summary.groupby("kind", sort=False):
        heads = ("runs", "MAPE", "bias", "worst")
        averages = _table(f"Averages of {kind}, over the runs of a scenario", *heads)
        for row in records(part):
            averages.add_row(
                row["scenario"],
                f"{row['statistic']} {row['metric']}",
                str(row["n"]),
                plain_percent(row["mape"]),
                signed_percent(row["bias"]),
                signed_percent(row["worst_error"]),
            )
        console.print(averages)
    if replay.log is not None:
        console.print(f"Source: {replay.log.source}", highlight=False)
        console.print(f"Note: {replay.log.note}", highlight=False)


def _print_tables(
    errors: pd.DataFrame, summary: pd.DataFrame, micro: pd.DataFrame | None
) -> None:
    console = Console()
    if micro is not None:
        console.print(_micro_table(micro))
    for kind in summary["kind"].unique():
        console.print(_case_table(errors[errors["kind"] == kind], kind))
        console.print(_summary_table(summary[summary["kind"] == kind], kind))
    left_out = not_simulatable()
    console.print(f"Not simulatable with the shipped data: {len(left_out)}")
    for case in left_out:
        console.print(f"  {case.id}: {case.reason}", highlight=False)


def _case_table(errors: pd.DataFrame, kind: str) -> Table:
    table = _table(f"Cases of {kind}", "measured", "predicted", "range", "error")
    for row in records(errors):
        spread = f"{number(row['lowest'])}..{number(row['highest'])}"
        of = f"{row['metric'].removesuffix('_ms')}, {row['unit']}"
        _add(table, row["case"], of, row, *([spread] if row["seeds"] > 1 else ["-"]))
    return table


def _summary_table(summary: pd.DataFrame, kind: str) -> Table:
    heads = ("n", "MAPE", "bias", "Spearman", "worst")
    table = _table(f"Averages of {kind}, metrics of one kind together", *heads)
    for row in records(summary):
        table.add_row(
            row["of"],
            row["group"],
            str(row["n"]),
            plain_percent(row["mape"]),
            signed_percent(row["bias"]),
            number(row["spearman"]),
            f"{row['worst_case']} {signed_percent(row['worst_error'])}",
        )
    return table


def _micro_table(frame: pd.DataFrame) -> Table:
    table = _table(
        "One 8192-token prompt, Qwen3-30B-A3B, 2 x H100 (seen by layered-prefill-*)",
        "measured ms",
        "predicted ms",
        "error",
    )
    renamed = {"measured_ms": "measured", "predicted_ms": "predicted"}
    for row in records(frame.rename(columns=renamed)):
        of = f"{row['profile']}, chunk {row['chunk_tokens']}"
        _add(table, of, row["part"], row)
    return table


def _add(
    table: Table, case: str, of: str, row: dict[str, Any], *before_error: str
) -> None:
    numbers = (number(row["measured"]), number(row["predicted"]))
    table.add_row(case, of, *numbers, *before_error, signed_percent(row["error"]))


def fit_command(*, as_json: bool) -> None:
    """Fit the engine profiles again and print the constants beside the shipped ones."""
    fitted = {
        **fit_profiles(),
        **{profile.name: profile for profile in map(fit_host, CASES)},
    }
    rows = [
        (name, key, shipped, value)
        for name, profile in fitted.items()
        for (key, shipped), (_, value) in zip(
            _constants(engine_profile(name)), _constants(profile), strict=True
        )
    ]
    if as_json:
        keys = ("profile", "constant", "shipped", "fitted")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    table = _table("Engine profiles, fitted from measured.toml", "shipped", "fitted")
    for name, key, shipped, value in rows:
        table.add_row(name, key, f"{shipped:g}", f"{value:g}")
    Console().print(table)


def _constants(profile: EngineProfile) -> Sequence[tuple[str, float]]:
    host = profile.host
    return (
        ("moe_memory_factor", profile.moe.memory),
        ("moe_compute_factor", profile.moe.compute),
        ("prefill_attention_factor", profile.prefill_attention_factor),
        ("row_layer_ns", profile.row_layer_ns),
        ("host.decode_ns", host.decode_ns),
        ("host.prefill_ns", host.prefill_ns),
        ("host.mixed_ns", host.mixed_ns),
        ("host.layered_ns", host.layered_ns),
        ("host.per_layer_ns", host.per_layer_ns),
        ("host.per_sequence_ns", host.per_sequence_ns),
        *((f"sort_logit_ps.{gpu}", ps) for gpu, ps in profile.sort_logit_ps.items()),
    )


def _table(title: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    table.add_column("of")
    for name in numbers:
        table.add_column(name, justify="right")
    return table
