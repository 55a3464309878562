"""The tables a run leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sim.iteration_log import IterationLog
from sim.recording import Recording
from sim.table import Table

_NOTHING: Final = Table()
_ITERATION_COLUMNS: Final = (
    "start_ns",
    "end_ns",
    "decode_tokens",
    "prefill_layer_tokens",
    "running",
    "waiting",
    "used_blocks",
    "energy_j",
)


@dataclass(frozen=True, slots=True)
class RunTables:
    """Tables of a run; those that are not recorded are empty.

    Attributes:
        requests: See :func:`sim.outcomes.outcomes_table`.
        timeseries: See :func:`sim.timeseries.timeseries_table`.
        steps: Ten seconds of iterations in full detail; see
            :func:`sim.steps.steps_table` and :func:`sim.steps.middle_window`.
        iterations: See :func:`iterations_table`.
        loads: Load of every GPU by MoE layer; see
            :func:`sim.expert_loads.loads_table`. Empty without a placement of experts.
        experts: The same of every expert.
    """

    requests: Table = _NOTHING
    timeseries: Table = _NOTHING
    steps: Table = _NOTHING
    iterations: Table = _NOTHING
    loads: Table = _NOTHING
    experts: Table = _NOTHING

    def reduced(self, recording: Recording) -> RunTables:
        """Without the tables that a level does not keep."""
        if recording.iterations:
            return self
        return RunTables(requests=self.requests if recording.requests else _NOTHING)


def iterations_table(logs: Sequence[IterationLog]) -> Table:
    """One row per iteration: ``replica`` and columns of :class:`IterationLog`."""
    replica = np.repeat(np.arange(len(logs)), [len(log) for log in logs])
    columns = {
        name: np.concatenate([np.asarray(getattr(log, name)) for log in logs])
        for name in _ITERATION_COLUMNS
    }
    return Table({"replica": replica} | columns)
