"""The measured errors that pages show are those of this version.

After a change of predictions or cases, write the file again: it is a copy of the
``cases.csv`` that ``servescope validate`` writes.
"""

from __future__ import annotations

from importlib.resources import files

import pandas as pd
import pytest

from calibration.cases import cases, select_cases
from sim.validate import case_errors
from tests.sim.test_validate import QUICK


@pytest.fixture(scope="module")
def shown() -> pd.DataFrame:
    with files("reports").joinpath("data", "accuracy.csv").open() as file:
        return pd.read_csv(file).set_index(["case", "metric"])


def test_every_measured_case_is_shown_as_registered(shown: pd.DataFrame) -> None:
    registered = {
        (case.id, measurement.metric): measurement.value
        for case in cases()
        for measurement in case.measurements
    }
    assert shown["measured"].to_dict() == registered


def test_predictions_are_not_stale(shown: pd.DataFrame) -> None:
    fresh = case_errors(select_cases(QUICK), jobs=1).set_index(["case", "metric"])
    for key, row in fresh.iterrows():
        assert shown.loc[key, "predicted"] == pytest.approx(row["predicted"], rel=1e-3)
        assert shown.loc[key, "kind"] == row["kind"]
