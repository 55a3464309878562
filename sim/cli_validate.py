"""The commands ``validate`` and ``calibrate``: measured beside predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from calibration.engine_profiles import EngineProfile, engine_profile
from sim.cli_output import print_json, progress
from sim.files import write_csv_atomic
from sim.fit_profiles import fit_profiles
from sim.results import make_directory
from sim.validate import end_to_end, micro_benchmark, needed_runs

MICRO_FILE = "micro_benchmark.csv"
END_TO_END_FILE = "end_to_end.csv"


def validate_command(
    directory: Path, *, seeds: int, jobs: int | None, as_json: bool, quiet: bool
) -> None:
    """Run every measured case; write two CSV files and print both tables."""
    micro = micro_benchmark()
    with progress("measured cases", len(needed_runs(seeds)), quiet=quiet) as on_done:
        serving = end_to_end(seeds, jobs, on_done)
    make_directory(directory)
    write_csv_atomic(directory / MICRO_FILE, micro)
    write_csv_atomic(directory / END_TO_END_FILE, serving)
    if as_json:
        tables = {"micro_benchmark": micro, "end_to_end": serving}
        print_json({name: _records(frame) for name, frame in tables.items()})
    elif not quiet:
        console = Console()
        console.print(_micro_table(micro))
        console.print(_serving_table(serving, seeds))


def fit_command(*, as_json: bool) -> None:
    """Fit the engine profiles again and print the constants beside the shipped ones."""
    fitted = fit_profiles()
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
    )


def _micro_table(frame: pd.DataFrame) -> Table:
    table = _table(
        "One 8192-token prompt, Qwen3-30B-A3B, 2 x H100 (seen by layered-prefill-*)",
        "measured ms",
        "predicted ms",
        "error",
    )
    for row in _records(frame):
        table.add_row(
            f"{row['profile']}, chunk {row['chunk_tokens']}",
            row["part"],
            _number(row["measured_ms"]),
            _number(row["predicted_ms"]),
            _percent(row["error"]),
        )
    return table


def _serving_table(frame: pd.DataFrame, seeds: int) -> Table:
    table = _table(
        f"Serving runs no constant has seen; median and range of {seeds} seed(s)",
        "measured",
        "predicted",
        "range",
        "error",
    )
    for row in _records(frame):
        table.add_row(
            f"{row['metric']}, {row['profile'].removeprefix('layered-prefill-')}",
            row["scheduler"].removesuffix("-prefill"),
            _number(row["measured"]),
            _number(row["predicted"]),
            f"{_number(row['lowest'])}..{_number(row['highest'])}",
            _percent(row["error"]),
        )
    return table


def _table(title: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    table.add_column("of")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f} %"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: None where a number is missing."""
    return [
        {
            str(key): None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }
        for row in frame.to_dict("records")
    ]
