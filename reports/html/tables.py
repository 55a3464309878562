"""Tables of the page: every number with the key and the run it stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import pandas as pd

from reports.html.accuracy import Accuracy
from reports.html.charts.stacks import ENERGY, TRAFFIC, Part
from reports.html.charts.timeline import KERNELS, breakdown_table
from reports.html.quantities import QUANTITIES, number_text
from reports.html.study import Run, Study

PROVENANCE: Final = (
    *("version", "profile", "model_id", "gpu", "num_gpus", "dataset", "seed"),
    *("num_prompts", "completed", "rejected", "extrapolated_fraction"),
    *("config_sha256", "workload_sha256", "calibration_sha256"),
)
_METRICS: Final = (("ttft_ms", "TTFT (s)"), ("e2el_ms", "E2E (s)"))
_WORST: Final = ("max_itl_ms", "worst TBT (ms)")


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, and the key and run it is the value of, if any."""

    text: str
    key: str = ""
    run: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Headings and rows; the first ``text`` columns are words."""

    heads: list[str]
    rows: list[list[Cell]]
    text: int = 1


def run_id(run: Run) -> str:
    """What names a run in the page."""
    return str(run.summary["config_sha256"])


def runs_table(study: Study) -> Table:
    """Every compared run with every quantity known of one."""
    quantities = [
        quantity
        for quantity in QUANTITIES.values()
        if any(math.isfinite(quantity.value(run.summary)) for run in study.compared)
    ]
    rows = [
        [
            Cell(run.load),
            Cell(run.name),
            *(Cell(q.text(run.summary), q.key, run_id(run)) for q in quantities),
        ]
        for run in study.compared
    ]
    return Table(["load", "policy", *(q.label for q in quantities)], rows, 2)


def parts_table(study: Study) -> Table:
    """Energy and HBM bytes per token, by part."""
    columns: list[tuple[Part, float, str]] = [
        *((part, 1e3, "mJ/token") for part in ENERGY),
        *((part, 1e-6, "MB/token") for part in TRAFFIC),
    ]
    rows = []
    for run in study.compared:
        tokens = run.summary["total_input_tokens"] + run.summary["total_output_tokens"]
        cells = [
            Cell(_per(run.summary.get(part.key), tokens, factor))
            for part, factor, _ in columns
        ]
        rows.append([Cell(run.load), Cell(run.name), *cells])
    heads = [f"{part.title} ({unit})" for part, _, unit in columns]
    return Table(["load", "policy", *heads], rows, 2)


def _per(value: float | None, tokens: float, factor: float) -> str:
    known = value is not None and tokens > 0
    return number_text(factor * float(value or 0.0) / tokens if known else math.nan, 2)


def paired_table(paired: pd.DataFrame) -> Table | None:
    """Mean differences per request with their intervals; None without any."""
    if paired.empty:
        return None
    heads, rows = ["load", "policy"], []
    for _, title in (*_METRICS, _WORST):
        heads += [title, "from", "to"]
    for (load, scheduler), group in paired.groupby(["load", "scheduler"], sort=False):
        cells = [Cell(str(load).replace("-", " ")), Cell(str(scheduler))]
        by_metric = group.set_index("metric")
        for key, title in (*_METRICS, _WORST):
            factor, decimals = (1e-3, 2) if title.endswith("(s)") else (1.0, 1)
            row = by_metric.loc[key].to_dict()
            cells += [
                Cell(number_text(factor * float(row[column]), decimals, "+"))
                for column in ("mean_difference_ms", "ci_low_ms", "ci_high_ms")
            ]
        rows.append(cells)
    return Table(heads, rows, 2)


def breakdown(study: Study, load: str) -> Table | None:
    """Mean milliseconds of every kernel by policy and kind of iteration."""
    rows = []
    for name in study.policies:
        run = study.run(name, load)
        table = None if run is None else breakdown_table(run)
        if table is None:
            continue
        for kind, row in table.iterrows():
            times = [Cell(number_text(float(row[part]), 2)) for part in KERNELS]
            count = Cell(number_text(float(row["iterations"]), 0))
            total = Cell(number_text(sum(float(row[part]) for part in KERNELS), 2))
            rows.append([Cell(name), Cell(str(kind)), count, total, *times])
    heads = ["policy", "iterations that are", "seen", "all"]
    return Table([*heads, *(t for t, _ in KERNELS.values())], rows, 2) if rows else None


def provenance_table(study: Study) -> Table:
    """Where each compared run comes from."""
    keys = [k for k in PROVENANCE if any(k in run.summary for run in study.compared)]
    rows = [
        [Cell(f"{run.name}, {run.load}")]
        + [Cell(plain_text(run.summary.get(key))) for key in keys]
        for run in study.compared
    ]
    return Table(["run", *keys], rows, len(keys) + 1)


def plain_text(value: object) -> str:
    """A value of ``result.json`` as provenance shows it."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def accuracy_table(accuracy: Accuracy) -> Table | None:
    """Each measured number beside its prediction."""
    if accuracy.cases.empty:
        return None
    rows = [
        [
            Cell(str(row["case"])),
            Cell(str(row["metric"])),
            Cell(str(row["kind"])),
            Cell(_figures(float(row["measured"]))),
            Cell(_figures(float(row["predicted"]))),
            Cell(_percent(row["error"])),
        ]
        for row in accuracy.cases.to_dict("records")
    ]
    return Table(
        ["measured run", "metric", "kind", "measured", "predicted", "error"], rows, 3
    )


def _percent(share: float) -> str:
    return f"{number_text(100 * share, 1, '+')} %"


def _figures(value: float) -> str:
    """Four significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def gains_table(gains: pd.DataFrame) -> Table | None:
    """Measured and predicted differences between the policies."""
    rows = [
        [
            Cell(str(row["metric"])),
            Cell(_percent(row["measured"])),
            Cell(_percent(row["predicted"])),
        ]
        for row in gains.to_dict("records")
    ]
    return Table(["metric", "measured", "predicted"], rows) if rows else None
