"""Which GPU? H100, H200 and B200 under one SLO, in $ and J per million tokens.

Each GPU carries the highest rate that meets the SLO. Prices change by the week and are
yours to give (``usd_per_gpu_hour``): here all three cost the same, and the table says
at which price each breaks even with the H100.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports.figures.bars import bars_figure
from reports.figures.save import save_figure
from sim.api import capacity
from sim.files import write_csv_atomic
from sim.studies.capacity import Search
from sim.worked_studies.options import Size, parse

GPUS = ("h100_sxm", "h200_sxm", "b200_sxm")
USD_PER_GPU_HOUR = 2.5
TABLE = "gpu_choice.csv"


def gpu_choice(out: Path, size: Size) -> pd.DataFrame:
    """Run the study; write ``gpu_choice.csv`` and its figure.

    Returns:
        A row per GPU: capacity with its interval, cost, energy, break-even price.
    """
    rows = []
    for gpu in GPUS:
        found = capacity(
            {
                "cluster.gpu": gpu,
                "cost.usd_per_gpu_hour": USD_PER_GPU_HOUR,
                "workload.duration_s": size.duration_s,
            },
            search=Search(max_seeds=size.replications, jobs=size.options.jobs),
            out=out / gpu,
        )
        usd = found.at_capacity("usd_per_million_tokens")
        energy = found.at_capacity("energy_per_token_j")
        rows.append(
            {
                "gpu": gpu.partition("_")[0].upper(),
                "capacity_req_s": found.rate.estimate,
                "capacity_ci_low": found.rate.low,
                "capacity_ci_high": found.rate.high,
                "usd_per_million_tokens": usd.estimate,
                "usd_half_width": usd.half_width,
                "kj_per_million_tokens": 1e3 * energy.estimate,
                "kj_half_width": 1e3 * energy.half_width,
            }
        )
    table = pd.DataFrame(rows)
    cost = table["usd_per_million_tokens"]
    table["break_even_usd_per_gpu_hour"] = USD_PER_GPU_HOUR * cost[0] / cost
    write_csv_atomic(out / TABLE, table)
    figure = bars_figure(
        table,
        "gpu",
        (
            ("capacity_req_s", "Rate at 90 % SLO\n(req/s)"),
            ("usd_per_million_tokens", "USD / million tokens"),
            ("kj_per_million_tokens", "kJ / million tokens"),
        ),
        "Qwen3-30B-A3B, layered prefill, arXiv, 2 GPUs at equal prices",
    )
    save_figure(figure, out, "gpu_choice")
    return table


if __name__ == "__main__":
    folder, chosen = parse(str(__doc__), "gpu-choice")
    print(gpu_choice(folder, chosen).to_string(index=False))  # noqa: T201
