"""Placements of experts as the page shows them: of ``servescope place``, or of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from reports.frame import read_table
from reports.html.quantities import number_text
from reports.html.study import Run, Study
from reports.html.tables import Cell, Table
from reports.placement_files import EXPERTS_FILE, LOADS_FILE, PLACE_FILE
from sim.errors import ConfigError

_PLACE: Final = (
    "strategy",
    "load_par",
    "affinity",
    "cross_gpu_share",
    "dispatch_sends",
)
_LOADS: Final = ("strategy", "layer", "gpu", "relative_load")
_EXPERTS: Final = ("layer", "expert", "relative_load")
_SUMMARY: Final = (
    ("load_par", "busiest GPU / mean", 1.0),
    ("affinity", "next expert on the same GPU (%)", 100.0),
    ("cross_gpu_share", "moves to another GPU (%)", 100.0),
    ("cross_node_share", "moves to another node (%)", 100.0),
    ("dispatch_sends", "remote sends per token and layer", 1.0),
)
_AS_PRICED: Final = (
    "Every iteration was priced with these loads, which are expectations under the"
    " routing statistics of the runs."
)


@dataclass(frozen=True, slots=True)
class Placements:
    """Placements compared on one set of routing statistics.

    Attributes:
        title: Their directory.
        table: A row per strategy.
        loads: Load of every GPU in every layer against the layer's mean, by strategy.
        experts: The same of every expert, whatever the placement.
        note: What a reader has to know of them.
    """

    title: str
    table: pd.DataFrame
    loads: pd.DataFrame
    experts: pd.DataFrame
    note: str = ""

    @property
    def strategies(self) -> list[str]:
        """In the order of the table."""
        return [str(name) for name in self.table["strategy"]]


def is_placements(directory: Path) -> bool:
    """Whether a directory is one of ``servescope place``."""
    return (directory / PLACE_FILE).exists()


def read_placements(directory: Path) -> Placements:
    """Read what ``servescope place`` wrote.

    Raises:
        ConfigError: If a file is missing or malformed.
    """
    table = _read(directory / PLACE_FILE, _PLACE)
    loads = _read(directory / LOADS_FILE, _LOADS)
    experts = _read(directory / EXPERTS_FILE, _EXPERTS)
    if set(table["strategy"]) != set(loads["strategy"]):
        raise ConfigError(
            f"{directory / LOADS_FILE}: other strategies than {PLACE_FILE}"
        )
    return Placements(directory.resolve().name, table, loads, experts)


def placements_of_runs(study: Study) -> Placements | None:
    """Placements that the runs were priced with; None where no run had any.

    A placement shared by runs is shown once. Runs of other routing statistics than the
    first are left out, and counted in the note.

    Raises:
        ConfigError: If a file is malformed.
    """
    placed = [run for run in study.compared if (run.folder / LOADS_FILE).exists()]
    if not placed:
        return None
    experts = [_read(run.folder / EXPERTS_FILE, _EXPERTS) for run in placed]
    alike = [
        run for run, own in zip(placed, experts, strict=True) if own.equals(experts[0])
    ]
    shown = pd.concat(_distinct(alike), ignore_index=True)
    names = pd.DataFrame({"strategy": shown["strategy"].unique()})
    note = _AS_PRICED
    if others := len(placed) - len(alike):
        note += f" {others} run(s) with other routing are left out: report them alone."
    return Placements(study.title, names, shown, experts[0], note)


def _distinct(runs: Sequence[Run]) -> list[pd.DataFrame]:
    """Loads that differ; a strategy that has several of them is named by its run."""
    found: list[pd.DataFrame] = []
    for run in runs:
        loads = _read(run.folder / LOADS_FILE, _LOADS)
        if any(loads.equals(known) for known in found):
            continue
        names = {str(name) for known in found for name in known["strategy"]}
        if names & set(map(str, loads["strategy"])):
            loads["strategy"] = f"{loads['strategy'][0]} ({run.name}, {run.load})"
        found.append(loads)
    return found


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    frame = read_table(path)
    if missing := [column for column in columns if column not in frame]:
        raise ConfigError(f"{path}: missing column(s) {', '.join(missing)}")
    if frame.empty:
        raise ConfigError(f"{path}: no rows")
    for column in columns[columns[0] == "strategy" :]:
        if (
            not pd.api.types.is_numeric_dtype(frame[column])
            or frame[column].isna().any()
        ):
            raise ConfigError(f"{path}: {column}: must be a number in every row")
    return frame


def placements_text(placements: Placements) -> dict[str, Any]:
    """Words and tables of a page of placements alone, for the template."""
    return {
        "title": placements.title,
        "subtitle": "expert placements on one set of routing statistics",
        "legend": [],
        "loads": [],
        "headline": "",
        "views": [],
        "warnings": [],
        "bests": [],
        "answers": [("Placements", summary_table(placements))],
        "accuracy_lines": [
            "Loads are expectations under the routing statistics that were placed on;"
            " other requests load experts otherwise (servescope place --eval judges"
            " there too)."
        ],
        "accuracy_table": None,
        "likeness": "",
        "gains_table": None,
        "provenance_table": _provenance(placements),
        "configurations": [],
        "runs_table": None,
        "paired_table": None,
        "parts_table": None,
        "baseline_label": "",
        "timeline_note": "",
    }


def summary_table(placements: Placements) -> Table:
    """Each strategy's balance and traffic."""
    columns = [item for item in _SUMMARY if item[0] in placements.table]
    rows = [
        [
            Cell(str(row["strategy"])),
            *(Cell(number_text(factor * row[key], 2)) for key, _, factor in columns),
        ]
        for row in placements.table.to_dict("records")
    ]
    return Table(["strategy", *(title for _, title, _ in columns)], rows)


def layers_table(placements: Placements) -> Table:
    """Per layer: the most chosen expert, and each strategy's busiest GPU."""
    experts = placements.experts
    hottest = experts.loc[experts.groupby("layer")["relative_load"].idxmax()]
    busiest = placements.loads.groupby(["layer", "strategy"])["relative_load"].max()
    rows = [
        [
            Cell(str(int(row["layer"]))),
            Cell(str(int(row["expert"]))),
            Cell(number_text(row["relative_load"], 2)),
            *(
                Cell(number_text(busiest.get((row["layer"], name), float("nan")), 2))
                for name in placements.strategies
            ),
        ]
        for row in hottest.to_dict("records")
    ]
    heads = ["MoE layer", "hottest expert", "its load / mean"]
    return Table([*heads, *(f"{n}: busiest GPU" for n in placements.strategies)], rows)


def _provenance(placements: Placements) -> Table:
    experts, loads = placements.experts, placements.loads
    rows = [
        ("MoE layers", experts["layer"].nunique()),
        ("experts per layer", experts["expert"].nunique()),
        ("GPUs", loads["gpu"].nunique()),
        ("strategies", ", ".join(placements.strategies)),
    ]
    return Table(["key", "values"], [[Cell(k), Cell(str(v))] for k, v in rows], 2)
