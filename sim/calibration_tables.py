"""Terminal tables of a calibration, each at most 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Final

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from calibration.engine_profiles import engine_profile, profile_names
from calibration.tables import KernelTables

_SHORT: Final = {
    "bfloat16": "bf16",
    "batch_size": "batch",
    "num_tokens": "tokens",
    "message_size": "bytes",
}
_HASH_DIGITS: Final = 12
_WORDS: Final = ("name", "description", "fitted_to", "graph_rows", "note", "evidence")


def error_matrix(errors: pd.DataFrame, framework: str) -> Table:
    """Mean absolute leave-one-out error, one row per kernel, one column per GPU.

    Args:
        errors: A frame of `leave_one_out` of one framework.
        framework: Its name, for the title.
    """
    title = f"{framework}: leave-one-out error of interpolation, mean absolute (%)"
    return _matrix(title, errors, ["table", "axis", "variant"], "mape")


def roofline_matrix(errors: pd.DataFrame) -> Table:
    """Fit error of the median MoE slice, one row per kernel, one column per GPU.

    Args:
        errors: A frame of `roofline_fit_errors`.
    """
    title = "MoE rooflines: fit error of the median slice, mean absolute (%)"
    return _matrix(title, errors, ["framework", "table", "variant"], "median")


def _matrix(title: str, errors: pd.DataFrame, keys: list[str], value: str) -> Table:
    gpus = list(dict.fromkeys(errors["gpu"]))
    table = _table(title, ("kernel",), [_gpu(gpu) for gpu in gpus])
    for names, rows in errors.groupby(keys, sort=True):
        known = dict(zip(rows["gpu"], rows[value], strict=True))
        cells = (f"{100 * known[gpu]:.1f}" if gpu in known else "-" for gpu in gpus)
        table.add_row(" ".join(_short(name) for name in names), *cells)
    return table


def error_table(errors: pd.DataFrame, framework: str) -> Table:
    """Every statistic of one GPU's leave-one-out errors.

    Args:
        errors: A frame of `leave_one_out` of one GPU and framework.
        framework: Its name, for the title.
    """
    title = f"{framework}: leave-one-out error, predicted / measured - 1 (%)"
    columns = ("points", "MAPE", "bias", "p90", "worst")
    table = _table(title, ("kernel",), columns)
    for row in errors.to_dict("records"):
        name = " ".join(_short(row[key]) for key in ("table", "axis", "variant"))
        values = _percents(row, ("mape", "+bias", "p90", "+worst"))
        table.add_row(name, str(row["points"]), *values)
    return table


def roofline_table(errors: pd.DataFrame) -> Table:
    """Fit errors of the MoE rooflines, over slices."""
    table = _table(
        "MoE rooflines: mean absolute error of the fit, over slices (%)",
        ("GPU", "framework", "kernel", "weights"),
        ("slices", "median", "p90", "worst"),
    )
    for row in errors.to_dict("records"):
        words = (_gpu(row["gpu"]), row["framework"], row["table"])
        values = _percents(row, ("median", "p90", "worst"))
        table.add_row(*words, _short(row["variant"]), str(row["slices"]), *values)
    return table


def routing_table(errors: pd.DataFrame) -> Table:
    """Errors of the MoE rooflines on a routing law their fit has not seen."""
    table = _table(
        "MoE rooflines on a routing law unseen by the fit, Qwen3-30B-A3B bf16 (%)",
        ("GPU", "framework", "TP x EP"),
        ("points", "MAPE", "bias"),
    )
    for row in errors.to_dict("records"):
        split = f"{row['moe_tp_size']} x {row['moe_ep_size']}"
        words = (_gpu(row["gpu"]), row["framework"], split)
        table.add_row(*words, str(row["points"]), *_percents(row, ("mape", "+bias")))
    return table


def pack_table(packs: Sequence[KernelTables]) -> Table:
    """Where the packs come from, one row each."""
    table = _table(
        "Kernel tables", ("GPU", "framework", "from", "SHA-256"), ("tables", "rows")
    )
    for pack in packs:
        entries = pack.provenance.values()
        engines = {k: e for k, e in pack.provenance.items() if k != "nccl"}.values()
        table.add_row(
            _gpu(pack.gpu),
            f"{pack.framework} {_several(e['framework_version'] for e in engines)}",
            _several(f"{e['package']} {e['package_version']}" for e in entries),
            pack.sha256[:_HASH_DIGITS],
            str(len(entries)),
            f"{sum(e['rows'] for e in entries):,}",
        )
    return table


def provenance_table(pack: KernelTables) -> Table:
    """Where the tables of one pack come from, one row each."""
    table = _table(
        f"{pack.pack}: kernel tables, SHA-256 {pack.sha256[:_HASH_DIGITS]}",
        ("table", "version", "from", "kernels"),
        ("rows",),
    )
    for name in pack.names:
        entry = pack.provenance[name]
        table.add_row(
            name,
            f"{_several(entry['framework'])} {entry['framework_version']}",
            f"{entry['package']} {entry['package_version']}",
            _several(entry["kernel_source"]),
            f"{entry['rows']:,}",
        )
    return table


def profile_table() -> Table:
    """Constants of every engine profile that differ from 0, and what they have seen."""
    table = _table("Engine profiles", ("profile", "constants", "fitted to"), ())
    for name in profile_names():
        constants = profile_constants(engine_profile(name))
        numbers = [
            f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in constants.items()
            if key not in _WORDS and value
        ]
        if rows := constants["graph_rows"]:
            numbers.append(f"graphs of {rows[0]} to {rows[-1]} rows")
        fitted = "; ".join(constants["fitted_to"]) or f"nothing: {constants['note']}"
        table.add_row(name, ", ".join(numbers), fitted)
    return table


def evidence_table() -> Table:
    """Confidence and source of every constant of every engine profile."""
    columns = ("profile", "constant", "confidence", "source")
    table = _table("Engine profiles: why to believe a constant", columns, ())
    for name in profile_names():
        for entry in engine_profile(name).evidence:
            table.add_row(name, entry.constant, entry.confidence, entry.source)
    return table


def profile_constants(profile: Any, prefix: str = "") -> dict[str, Any]:
    """Fields of a profile by name, those of its parts with a dotted name."""
    found: dict[str, Any] = {}
    for field in fields(profile):
        value = getattr(profile, field.name)
        if is_dataclass(value):
            found |= profile_constants(value, f"{prefix}{field.name}.")
        elif isinstance(value, Mapping):
            found |= {f"{prefix}{field.name}.{key}": own for key, own in value.items()}
        elif field.name == "evidence":
            found["evidence"] = [asdict(entry) for entry in value]
        else:
            found[prefix + field.name] = value
    return found


def _table(title: str, words: Iterable[str], numbers: Iterable[str]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in words:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _gpu(name: str) -> str:
    """Short enough for the head of a column."""
    return name.removesuffix("_sxm").removesuffix("_6000")


def _short(name: Any) -> str:
    return _SHORT.get(str(name), str(name))


def _several(names: Iterable[str]) -> str:
    """Different names, each once, in order."""
    return ", ".join(dict.fromkeys(names))


def _percents(row: Mapping[Any, Any], keys: Iterable[str]) -> list[str]:
    """Shares as per cent, with a sign where the key starts with a plus."""
    return [
        f"{100 * row[key.removeprefix('+')]:{'+' if key[0] == '+' else ''}.1f}"
        for key in keys
    ]
