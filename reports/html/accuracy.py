"""How far predictions were off where they could be measured, for what a page shows."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import pandas as pd

ACCURACY_FILE: Final = "accuracy.csv"
# How close a measured case is, the closest first: the keys that must agree.
_LEVELS: Final = (
    (("profile", "model", "gpu"), "this engine, model and GPU"),
    (("profile", "model"), "this engine and model, on other GPUs"),
    (("profile", "gpu"), "this engine and GPU, with other models"),
    (("profile",), "this engine, with other models and GPUs"),
    (("model", "gpu"), "this model and GPU, in other engines"),
)
_GROUPS: Final = ("TTFT", "TPOT/ITL", "E2E", "energy", "SLO rate", "throughput")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Measured cases that are like a run.

    Attributes:
        likeness: In what they are like it; empty where there is no such case.
        cases: ``case``, ``kind`` (calibration: some constant has seen the number;
            validation: none has), ``group``, ``metric``, ``unit``, ``scheduler``,
            ``measured``, ``predicted`` and ``error`` (predicted / measured - 1).
    """

    likeness: str
    cases: pd.DataFrame

    def groups(self) -> pd.DataFrame:
        """``kind``, ``group``, ``n``, ``lowest``, ``mean`` and ``highest`` error."""
        errors = self.cases.groupby(["kind", "group"], sort=False)["error"]
        table = errors.agg(n="size", lowest="min", mean="mean", highest="max")
        return table.reset_index()

    def errors_of(self, group: str) -> pd.Series:
        """Errors of a group that no constant has seen."""
        held_out = self.cases["kind"] == "validation"
        return self.cases.loc[held_out & (self.cases["group"] == group), "error"]


def accuracy_of(summary: dict[str, Any]) -> Accuracy:
    """The measured cases closest to a run, as predicted by this version."""
    frame = _measured()
    run = {
        "profile": summary["profile"],
        "model": summary["model_id"],
        "gpu": summary["gpu"],
    }
    for keys, likeness in _LEVELS:
        same = pd.Series(data=True, index=frame.index)
        for key in keys:
            same &= frame[key] == run[key]
        if same.any():
            return Accuracy(likeness, _ordered(frame[same]))
    return Accuracy("", frame.iloc[:0])


def measured_gains(summary: dict[str, Any]) -> pd.DataFrame:
    """Cases of a run's engine, model and GPU that measured both policies alike.

    Returns:
        ``metric``, and ``measured`` and ``predicted``: layered / chunked prefill - 1.
    """
    frame = _measured()
    for key in ("profile", "model", "gpu"):
        frame = frame[frame[key] == summary["model_id" if key == "model" else key]]
    frame = frame.assign(
        pair=frame["case"].str.replace("chunked|layered", "", regex=True)
    )
    keys = ["pair", "metric"]
    sides = [
        frame[frame["scheduler"] == name].set_index(keys)[["measured", "predicted"]]
        for name in ("chunked-prefill", "layered-prefill")
    ]
    both = sides[0].index.intersection(sides[1].index)
    return (sides[1].loc[both] / sides[0].loc[both] - 1).reset_index()


def _measured() -> pd.DataFrame:
    source = files("reports").joinpath("data", ACCURACY_FILE)
    with source.open(encoding="utf-8") as file:
        table = pd.read_csv(file)  # noqa: TID251  (ships with the package)
    return table.dropna(subset=["error"])


def _ordered(cases: pd.DataFrame) -> pd.DataFrame:
    place = {name: index for index, name in enumerate(_GROUPS)}
    rank = cases["group"].map(place).fillna(len(place))
    by = cases.assign(_rank=rank).sort_values(
        ["kind", "_rank"], ascending=[False, True]
    )
    return by.drop(columns="_rank").reset_index(drop=True)
