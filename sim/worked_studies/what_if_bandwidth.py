"""What if HBM or links were faster: where does layered prefill stop paying?

Layered prefill saves expert weights read again by every chunk. Faster memory makes
that saving worth less, faster links make the rest of an iteration shorter. The same
requests under both policies, over factors on either bandwidth.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports.figures.lines import lines_figure
from reports.figures.save import save_figure
from sim.api import sweep
from sim.files import write_csv_atomic
from sim.worked_studies.options import Size, parse

SCALES = (0.5, 1.0, 2.0, 4.0, 8.0)
KNOBS = ("cluster.hbm_bandwidth_scale", "cluster.link_bandwidth_scale")
POLICIES = ("chunked-prefill", "layered-prefill")
RATE = 0.6  # half the bandwidth halves the knee: both policies must stay below it
METRICS = {
    "mean_ttft_ms": "Mean TTFT",
    "p99_itl_ms": "p99 TBT",
    "energy_per_token_j": "Energy per token",
}
TABLE = "what_if_bandwidth.csv"


def what_if_bandwidth(out: Path, size: Size) -> pd.DataFrame:
    """Run the study; write ``what_if_bandwidth.csv`` and its figure.

    Returns:
        A row per knob and factor: layered / chunked - 1 in % for each of ``METRICS``,
        mean over seeds (below 0 where layered prefill pays).
    """
    points = sweep(
        [
            {
                "engine.scheduler": ["chunked-prefill", "layered-prefill"],
                knob: [*SCALES],
            }
            for knob in KNOBS
        ],
        {
            "calibration.profile": "layered-prefill-v1",
            "workload.request_rate": RATE,
            "workload.duration_s": size.duration_s,
        },
        replications=size.replications,
        out=out,
        options=size.options,
    )
    table = pd.concat([_changes(points, knob) for knob in KNOBS], ignore_index=True)
    write_csv_atomic(out / TABLE, table)
    figure = lines_figure(
        table,
        "knob",
        "factor",
        METRICS,
        f"Layered against chunked prefill, Qwen3-30B-A3B on what-if 2 x H100,"
        f" arXiv, {RATE} req/s",
        "Factor on bandwidth",
        "Change by layered prefill (%)",
    )
    save_figure(figure, out, "what_if_bandwidth")
    return table


def _changes(points: pd.DataFrame, knob: str) -> pd.DataFrame:
    other = next(key for key in KNOBS if key != knob)
    rows = points[points[other] == 1.0]
    means = rows.groupby([knob, "scheduler"])[list(METRICS)].mean().unstack()
    change = pd.DataFrame(
        {
            name: 100
            * (means[name, "layered-prefill"] / means[name, "chunked-prefill"] - 1)
            for name in METRICS
        }
    )
    names = dict(zip(KNOBS, ("HBM", "links"), strict=True))
    table = change.rename_axis("factor").reset_index()
    table.insert(0, "knob", names[knob])
    return table


if __name__ == "__main__":
    folder, chosen = parse(str(__doc__), "what-if-bandwidth")
    print(what_if_bandwidth(folder, chosen).to_string(index=False))  # noqa: T201
