"""How far predictions are off, over groups of measured cases."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import pandas as pd

CALIBRATION: Final = "calibration"
VALIDATION: Final = "validation"
_MIN_RANKED: Final = 3  # a correlation of two points is always 1 or -1
_BY: Final = ("metric", "model", "gpu")


def error_summary(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean absolute error, bias and rank correlation by metric, model and GPU.

    Numbers of one metric group only are averaged together, and calibration never with
    validation. Rows whose prediction does not exist are counted in ``missing``.

    Args:
        cases: The columns kind, group, model, gpu, case, metric, measured, predicted
            and error of :func:`sim.validate.case_errors`.

    Returns:
        One row per kind, ``by`` (metric, model or gpu), ``of`` (its value; "all" for
        metric) and ``group``: ``n``, ``missing``, ``mape``, ``bias`` (mean signed
        error), ``spearman`` (NaN below three numbers), ``worst_case``,
        ``worst_metric`` and ``worst_error``.
    """
    rows = []
    for by in _BY:
        of = pd.Series("all", cases.index) if by == "metric" else cases[by]
        keys = [cases["kind"], of.rename("of"), cases["group"]]
        for (kind, value, group), part in cases.groupby(keys, sort=True):
            known = part[part["error"].notna()]
            head = {"kind": kind, "by": by, "of": value, "group": group}
            missing = {"n": len(known), "missing": len(part) - len(known)}
            rows.append(head | missing | _statistics(known))
    frame = pd.DataFrame(rows)
    kinds = pd.Categorical(frame["kind"], [VALIDATION, CALIBRATION])
    ordered = frame.assign(kind=kinds, by=pd.Categorical(frame["by"], _BY))
    ordered = ordered.sort_values(["kind", "by", "of", "group"], ignore_index=True)
    return ordered.astype({"kind": str, "by": str})


def _statistics(known: pd.DataFrame) -> dict[str, object]:
    if known.empty:
        names = ("mape", "bias", "spearman", "worst_error")
        return dict.fromkeys(names, math.nan) | {"worst_case": "", "worst_metric": ""}
    errors = known["error"]
    worst = known.iloc[int(errors.abs().to_numpy().argmax())]
    mape, bias = mape_and_bias(errors)
    return {
        "mape": mape,
        "bias": bias,
        "spearman": rank_correlation(known["measured"], known["predicted"]),
        "worst_case": worst["case"],
        "worst_metric": worst["metric"],
        "worst_error": worst["error"],
    }


def mape_and_bias(errors: pd.Series) -> tuple[float, float]:
    """Mean absolute and mean signed error of some relative errors, at least one."""
    return math.fsum(errors.abs()) / len(errors), math.fsum(errors) / len(errors)


def rank_correlation(a: pd.Series, b: pd.Series) -> float:
    """Spearman's rho: Pearson's correlation of ranks, ties at their mean rank.

    Returns:
        NaN for fewer than three pairs, or if either side does not vary.
    """
    if len(a) < _MIN_RANKED:
        return math.nan
    x = a.rank().to_numpy() - (len(a) + 1) / 2
    y = b.rank().to_numpy() - (len(b) + 1) / 2
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / spread if spread else math.nan
