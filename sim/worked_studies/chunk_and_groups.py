"""Which chunk size or group count? TTFT against TBT for Qwen3-30B-A3B on 2 x H100.

Chunked prefill trades TTFT for TBT by its chunk, layered prefill by its number of
layer groups: all values of both at one rate, averaged over seeds.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports.pareto_report import write_pareto
from sim.api import frontier, sweep
from sim.worked_studies.options import Size, parse

CHUNKS = [512, 1024, 2048, 4096, 8192]
GROUPS = [2, 4, 8, 16, 24]
RATE = 1.2  # below the knee of every setting, so that none only measures overload


def chunk_and_groups(out: Path, size: Size) -> pd.DataFrame:
    """Run the study; write points, frontiers and figures.

    Returns:
        How far the frontiers lie apart: see :func:`reports.frontier.shift_frame`.
    """
    points = sweep(
        [
            {
                "engine.scheduler": ["chunked-prefill"],
                "engine.max_num_batched_tokens": CHUNKS,
            },
            {
                "engine.scheduler": ["layered-prefill"],
                "engine.num_layer_groups": GROUPS,
            },
        ],
        {
            "model.name": "Qwen/Qwen3-30B-A3B",
            "calibration.profile": "layered-prefill-v1",
            "workload.request_rate": RATE,
            "workload.duration_s": size.duration_s,
        },
        replications=size.replications,
        out=out,
        options=size.options,
    )
    sets = [
        ("-".join(names), frontier(points, *names))
        for names in (("ttft", "tbt"), ("tbt", "energy"))
    ]
    write_pareto(sets, out)
    # written a line above
    return pd.read_csv(out / "pareto-shift.csv")  # noqa: TID251


if __name__ == "__main__":
    folder, chosen = parse(str(__doc__), "chunk-and-groups")
    print(chunk_and_groups(folder, chosen).to_string(index=False))  # noqa: T201
