"""The report of a validation: Markdown by hand, parity plot, errors in one line."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from reports.figures.parity import parity_figure
from reports.validation import (
    CASES_FILE,
    SUMMARY_FILE,
    number,
    signed_percent,
    write_validation_report,
)
from sim.error_summary import error_summary
from sim.errors import ConfigError


def _cases() -> pd.DataFrame:
    rows = [
        ("a", "validation", "TPOT/ITL", "mean_tpot_ms", "ms", "h100_sxm", 10.0, 11.0),
        ("b", "validation", "TTFT", "mean_ttft_ms", "ms", "a100_sxm", 2000.0, 1000.0),
        ("b", "calibration", "power", "power_per_gpu_w", "W", "b200_sxm", 500.0, 510.0),
    ]
    names = ("case", "kind", "group", "metric", "unit", "gpu", "measured", "predicted")
    frame = pd.DataFrame(rows, columns=list(names))
    return frame.assign(
        model="m",
        engine="vLLM 0.1",
        profile="p",
        lowest=frame["predicted"],
        highest=frame["predicted"],
        error=frame["predicted"] / frame["measured"] - 1,
    )


def _write(folder: Path, cases: pd.DataFrame) -> None:
    cases.to_csv(folder / CASES_FILE, index=False)
    error_summary(cases).to_csv(folder / SUMMARY_FILE, index=False)


def test_report_holds_every_case_and_keeps_kinds_apart(tmp_path: Path) -> None:
    _write(tmp_path, _cases())
    paths = write_validation_report(tmp_path)
    assert [path.name for path in paths] == ["cases.md", "parity.png", "parity.svg"]
    text = paths[0].read_text()
    validation, calibration = text.split("**Calibration")
    assert "| a | vLLM 0.1 | p | mean_tpot, ms | 10 | 11 | +10.0 % |" in validation
    assert "| b | vLLM 0.1 | p | mean_ttft, ms | 2000 | 1000 | -50.0 % |" in validation
    assert "power" not in validation
    assert "| power_per_gpu_w, W | 500 | 510 | +2.0 % |" in calibration
    row = "| all | TTFT | 1 | 50.0 % | -50.0 % | - | b, mean_ttft_ms -50.0 % |"
    assert row in validation
    for line in text.splitlines():
        assert line.count("|") in {0, 8}


@pytest.mark.long
def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    _write(tmp_path, _cases())
    first = [path.read_bytes() for path in write_validation_report(tmp_path)]
    assert first == [path.read_bytes() for path in write_validation_report(tmp_path)]


def test_hollow_is_calibration_and_filled_is_validation() -> None:
    figure = parity_figure(_cases())
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert set(panels) == {"TPOT/ITL (ms)", "TTFT (ms)", "power (W)"}

    def filled(panel: str) -> bool:
        scatters = (
            drawn
            for drawn in panels[panel].collections
            if isinstance(drawn, PathCollection) and len(drawn.get_offsets())
        )
        (points,) = scatters
        return len(points.get_facecolor()) > 0

    assert [filled(name) for name in ("TTFT (ms)", "power (W)")] == [True, False]


def test_a_prediction_that_does_not_exist_is_a_dash(tmp_path: Path) -> None:
    cases = _cases()
    cases.loc[0, ["predicted", "lowest", "highest", "error"]] = math.nan
    _write(tmp_path, cases)
    text = write_validation_report(tmp_path)[0].read_text()
    assert "| a | vLLM 0.1 | p | mean_tpot, ms | 10 | - | - |" in text


def test_a_missing_column_or_row_is_one_clear_line(tmp_path: Path) -> None:
    _write(tmp_path, _cases())
    _cases().drop(columns="error").to_csv(tmp_path / CASES_FILE, index=False)
    with pytest.raises(ConfigError, match=r"missing column\(s\) error"):
        write_validation_report(tmp_path)
    _cases().head(0).to_csv(tmp_path / CASES_FILE, index=False)
    with pytest.raises(ConfigError, match="no rows"):
        write_validation_report(tmp_path)


def test_numbers_as_text() -> None:
    assert [number(x) for x in (3678.5, 48.444, 0.0565, None, math.nan)] == [
        "3678",
        "48.4",
        "0.0565",
        "-",
        "-",
    ]
    assert signed_percent(-0.0614) == "-6.1 %"
