"""Study: scheduling policy times expert placement, with intervals over seeds.

Chunked and layered prefill under every placement, on one 8-GPU node (Qwen3-30B-A3B)
and on four (Qwen3-235B-A22B, EP 32), arXiv summarisation, the presets' routing::

    python -m sim.placement_study --out placement-study

Writes study.csv (a row per run), study_summary.csv (mean and 95 % interval per case)
and a figure per model. ``--published`` instead prints the published gains of ExFlow,
MoETuner and a greedy packer beside ours (see :mod:`sim.placement_published`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pandas as pd
from joblib import Parallel, cpu_count, delayed

from reports.placement_study import STUDY_FILE, write_study_figures
from sim.cli_output import progress
from sim.config_file import load_config
from sim.errors import ConfigError, SimulationError
from sim.files import write_csv_atomic
from sim.placement_published import published_frame
from sim.results import make_directory
from sim.runner import run_config

SCHEDULERS: Final = ("chunked-prefill", "layered-prefill")
PLACEMENTS: Final = ("linear", "eplb", "exflow", "moetuner", "joint")
METRICS: Final = (
    "mean_ttft_ms",
    "p99_ttft_ms",
    "mean_itl_ms",
    "p99_itl_ms",
    "request_goodput",
    "energy_per_token_j",
)
_COMMON: Final = (
    *("cluster.gpus_per_node=8", "parallel.tensor_parallel_size=8"),
    *("moe.statistics=preset", "moe.communication=ep_home", "workload.dataset=arxiv"),
)
# Rates at about 70 % of what chunked prefill carries with contiguous experts.
CASES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Qwen3-30B-A3B, 1 node": (
            *_COMMON,
            *("model.name=Qwen/Qwen3-30B-A3B", "parallel.expert_parallel_size=8"),
            *("workload.request_rate=3.5", "slo.ttft_ms=2000.0", "slo.itl_ms=25.0"),
        ),
        "Qwen3-235B-A22B, 4 nodes": (
            *_COMMON,
            *("model.name=Qwen/Qwen3-235B-A22B", "cluster.nodes=4"),
            *("parallel.data_parallel_size=4", "parallel.expert_parallel_size=32"),
            *("workload.request_rate=2.0", "slo.ttft_ms=4000.0", "slo.itl_ms=100.0"),
        ),
    }
)
# A data-parallel group of four ranks takes four usual chunks in an iteration.
_CHUNK: Final = {"Qwen3-235B-A22B, 4 nodes": "engine.max_num_batched_tokens=2048"}


def run_study(
    seeds: int, requests: int, jobs: int | None = None, *, quiet: bool = False
) -> pd.DataFrame:
    """Every case, scheduler, placement and seed; one row each.

    Args:
        seeds: Workload seeds per case.
        requests: Requests of a run.
        jobs: Processes; None for one per core.
        quiet: Show no progress.
    """
    points = [
        (case, scheduler, placement, seed)
        for case in CASES
        for placement in PLACEMENTS
        for scheduler in SCHEDULERS
        for seed in range(seeds)
    ]
    tasks = [delayed(_run)(*point, requests) for point in points]
    rows = []
    with progress("runs", len(tasks), quiet=quiet) as one_more:
        processes = min(jobs or cpu_count(), len(tasks))
        for row in Parallel(n_jobs=processes, return_as="generator")(tasks):
            rows.append(row)
            one_more()
    return pd.DataFrame(rows)


def _run(
    case: str, scheduler: str, placement: str, seed: int, requests: int
) -> dict[str, Any]:
    overrides = [
        *CASES[case],
        f"engine.scheduler={scheduler}",
        f"moe.placement={placement}",
        f"seed={seed}",
        f"workload.num_requests={requests}",
    ]
    if scheduler == "chunked-prefill" and case in _CHUNK:
        overrides.append(_CHUNK[case])
    summary = run_config(load_config(None, overrides)).summary
    labels = {"case": case, "scheduler": scheduler, "placement": placement}
    return labels | {"seed": seed} | {name: summary[name] for name in METRICS}


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and half width of the 95 % interval (Student t) over seeds."""
    from scipy.stats import t  # noqa: PLC0415  (slow to load)

    groups = runs.groupby(["case", "scheduler", "placement"], sort=False)
    mean = groups[list(METRICS)].mean()
    number = int(groups.size().min())
    width = groups[list(METRICS)].std(ddof=1) / number**0.5
    width *= float(t.ppf(0.975, number - 1)) if number > 1 else float("nan")
    return mean.join(width.add_suffix("_ci95")).reset_index()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 0 if done, 1 if a run failed, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m sim.placement_study", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("placement-study"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--published", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1 or arguments.requests < 1:
        parser.error("--seeds and --requests must be >= 1")
    try:
        make_directory(arguments.out)
        if arguments.published:
            frame = published_frame()
            write_csv_atomic(arguments.out / "published.csv", frame)
        else:
            runs = run_study(arguments.seeds, arguments.requests, arguments.jobs)
            frame = summarise(runs)
            write_csv_atomic(arguments.out / STUDY_FILE, runs)
            write_csv_atomic(arguments.out / "study_summary.csv", frame)
            write_study_figures(arguments.out)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except SimulationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(frame.to_string(index=False, float_format="{:.4g}".format) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
