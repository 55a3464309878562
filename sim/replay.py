"""A per-request log replayed request by request: measured and predicted latencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from calibration.case import RequestLog
from calibration.cases import request_logs
from sim.build import Machine, build_machine, check_registered
from sim.config import Config
from sim.config_errors import value_text
from sim.config_file import load_config
from sim.error_summary import CALIBRATION, VALIDATION, mape_and_bias
from sim.errors import ConfigError
from sim.recording import Recording
from sim.runner import PreparedRun, run_prepared
from workloads.request_logs import LoggedRun, read_request_log

STATISTICS: Final = ("mean", "p50", "p99")


@dataclass(frozen=True, slots=True)
class Replay:
    """A log and the machine that stands for the server it was taken on.

    Attributes:
        config: Model, GPUs and engine.
        machine: The same, built.
        runs: What is replayed, each on an empty server.
        log: The registry's entry; None for a log it does not know.
    """

    config: Config
    machine: Machine
    runs: tuple[LoggedRun, ...]
    log: RequestLog | None = None

    def kind(self, metric: str) -> str:
        """Calibration where a constant has seen the log's ``metric``, or validation."""
        seen = self.log is not None and self.log.is_calibration(metric)
        return CALIBRATION if seen else VALIDATION


def load_replay(log: Path, overrides: Sequence[str] = ()) -> Replay:
    """Read a log and build its server.

    The server is what the registry of cases says of a log of this name, and over it
    what ``overrides`` say; a log that the registry does not know is served as they and
    the defaults say, which must therefore not be empty.

    Args:
        log: The file; see :mod:`workloads.request_logs`.
        overrides: ``key=value`` texts, as of ``--set``.

    Raises:
        ConfigError: If the log or an override is bad, or the machine cannot be built:
            no such GPU, no kernel tables, no room for the model.
    """
    known = request_logs().get(log.name)
    if known is None and not overrides:
        raise ConfigError(
            f"{log}: no log of this name is registered; allowed: --set with the server"
            f" (model.name, cluster.gpu, ...), or one of {', '.join(request_logs())}"
        )
    runs = read_request_log(log)
    base: list[str] = []
    if known is not None:
        runs = tuple(run for run in runs if run.name not in known.leave_out)
        settings = known.setup.settings()
        base = [f"{key}={value_text(value)}" for key, value in settings.items()]
    config = load_config(None, [*base, *overrides], check=check_registered)
    return Replay(config, build_machine(config), runs, known)


def replay_errors(
    replay: Replay, on_done: Callable[[], None] = lambda: None
) -> pd.DataFrame:
    """Serve every run of a log and compare the distributions of TTFT and TPOT.

    Args:
        replay: A log and its server.
        on_done: Called as each run ends.

    Returns:
        One row per run, metric (ttft, tpot) and statistic: ``scenario``, ``kind``
        (calibration or validation), ``requests``, ``measured``, ``predicted`` (ms) and
        ``error``. Only requests that finished in the simulation are compared, on both
        sides.

    Raises:
        SimulationError: If a scheduler breaks an invariant.
    """
    rows = []
    for run in replay.runs:
        prepared = PreparedRun(replay.config, replay.machine, run.workload)
        requests = run_prepared(prepared, recording=Recording.REQUESTS).requests
        done = requests["rejected"].to_numpy() == ""
        for metric, measured_ms in (("ttft", run.ttft_ms), ("tpot", run.tpot_ms)):
            predicted_ms = requests[f"{metric}_ms"].to_numpy(dtype=np.float64)
            both = done & np.isfinite(measured_ms) & np.isfinite(predicted_ms)
            head = {"run": run.name, "scenario": run.scenario, "metric": metric}
            head["kind"] = replay.kind(metric)
            rows += _rows(head, measured_ms[both], predicted_ms[both])
        on_done()
    frame = pd.DataFrame(rows)
    return frame.assign(error=frame["predicted"] / frame["measured"] - 1.0)


def replay_summary(errors: pd.DataFrame) -> pd.DataFrame:
    """Errors of :func:`replay_errors` averaged over the runs of a scenario.

    Returns:
        One row per kind, scenario, metric and statistic: ``n`` runs, ``mape``, ``bias``
        and the ``worst_run`` with its ``worst_error``.
    """
    rows = []
    keys = ["kind", "scenario", "metric", "statistic"]
    known = errors[errors["error"].notna()]
    for values, part in known.groupby(keys, sort=False):
        worst = part.iloc[int(part["error"].abs().to_numpy().argmax())]
        mape, bias = mape_and_bias(part["error"])
        rows.append(
            dict(zip(keys, values, strict=True))
            | {"n": len(part), "mape": mape, "bias": bias}
            | {"worst_run": worst["run"], "worst_error": worst["error"]}
        )
    averages = ["n", "mape", "bias", "worst_run", "worst_error"]
    return pd.DataFrame(rows, columns=[*keys, *averages])


def _rows(
    head: dict[str, str],
    measured_ms: npt.NDArray[np.float64],
    predicted_ms: npt.NDArray[np.float64],
) -> list[dict[str, object]]:
    return [
        {
            **head,
            "statistic": statistic,
            "requests": measured_ms.size,
            "measured": _statistic(statistic, measured_ms),
            "predicted": _statistic(statistic, predicted_ms),
        }
        for statistic in STATISTICS
    ]


def _statistic(name: str, values: npt.NDArray[np.float64]) -> float:
    if not values.size:
        return float("nan")
    if name == "mean":
        return float(values.mean())
    return float(np.percentile(values, float(name.removeprefix("p"))))
