"""What became of each request, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.metrics import LatencySample, Slo, meets_slo
from sim.record_table import RecordTable
from sim.request import RequestRecord
from sim.table import PartlyKnown, Table
from sim.units import NS_PER_MS

Values = npt.NDArray[np.float64] | npt.NDArray[np.bool_]


def outcomes_table(
    records: Sequence[RequestRecord], sample: LatencySample, slo: Slo
) -> Table:
    """One row per request in workload order; a field without a value is empty.

    Args:
        records: The requests of a run.
        sample: Latencies of the finished ones, in the order of ``records``.
        slo: Limits of a good request.

    Returns:
        ``id``, ``arrival_ns``, ``replica``, ``prompt_tokens``, ``output_tokens``
        (emitted: 0 when rejected), ``first_scheduled_ns``, ``first_token_ns``,
        ``finish_ns``, ``ttft_ms``, ``tpot_ms``, ``e2el_ms``, ``max_itl_ms``,
        ``preemptions``, ``retries``, ``rejected`` (the reason) and ``met_slo``
        (finished within every limit that is set). ``tpot_ms`` and ``max_itl_ms`` need
        two tokens.
    """
    table = RecordTable.of(records)
    finished = table.known("finish_ns")
    reasons = np.full(len(table), "", dtype=object)
    for position, reason in table.odd("rejected").items():
        reasons[position] = reason
    several = sample.output_tokens > 1
    gaps = np.maximum(sample.output_tokens - 1, 1)
    decode_ms = (sample.e2el_ns - sample.ttft_ns) / NS_PER_MS
    max_itl_ms = sample.worst_itl_ns / NS_PER_MS
    return Table(
        {
            "id": np.arange(len(table)),
            "arrival_ns": table.column("arrival_ns"),
            "replica": table.column("replica"),
            "prompt_tokens": table.prompt_tokens(),
            "output_tokens": _filled(finished, sample.output_tokens, 0),
            "first_scheduled_ns": _optional(table, "first_scheduled_ns"),
            "first_token_ns": _optional(table, "first_token_ns"),
            "finish_ns": _optional(table, "finish_ns"),
            "ttft_ms": _filled(finished, sample.ttft_ns / NS_PER_MS, np.nan),
            "tpot_ms": _filled(finished, _where(several, decode_ms / gaps), np.nan),
            "e2el_ms": _filled(finished, sample.e2el_ns / NS_PER_MS, np.nan),
            "max_itl_ms": _filled(finished, _where(several, max_itl_ms), np.nan),
            "preemptions": table.column("preemptions"),
            "retries": table.column("retries"),
            "rejected": reasons,
            "met_slo": _filled(finished, meets_slo(sample, slo), False),
        }
    )


def _optional(table: RecordTable, name: str) -> PartlyKnown:
    return PartlyKnown(table.column(name), table.known(name))


def _where(known: npt.NDArray[np.bool_], values: Values) -> Values:
    return np.where(known, values, np.nan)


def _filled(
    finished: npt.NDArray[np.bool_], values: npt.NDArray[np.generic], missing: float
) -> npt.NDArray[np.generic]:
    """Values of finished requests among all requests."""
    column = np.full(finished.size, missing, dtype=values.dtype)
    column[finished] = values
    return column
