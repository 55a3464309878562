"""Reading a compare frame: what is refused, and the derived quantities by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports.frame import (
    caption,
    change_percent,
    check_compare,
    finite_rates,
    policy_order,
    read_compare,
    readable,
)
from sim.errors import ConfigError
from tests.reports.sample import compare_frame

_ONE = compare_frame(("chunked-prefill", "layered-prefill"), (1.3,))


def test_units_are_converted_as_worked_by_hand() -> None:
    """ms to s, J to mJ per token, bytes to TB and to GB per completed request."""
    frame = _ONE.assign(
        mean_ttft_ms=[2800.0, 1240.0],
        p99_ttft_ms=[8650.0, 4100.0],
        p99_itl_ms=[48.4, 35.5],
        mean_e2el_ms=[9400.0, 5500.0],
        slo_attainment=[0.976, 1.0],
        energy_j=[5660.0, 4420.0],
        energy_per_token_j=[0.0566, 0.0442],  # so 100,000 tokens each
        energy_run_j=[3000.0, 2000.0],
        completed=[100, 50],
        expert_weight_bytes=[95.5e12, 29e12],
    )
    values = readable(frame)
    expected = {
        "mean_ttft_s": [2.8, 1.24],
        "p99_ttft_s": [8.65, 4.1],
        "p99_tbt_ms": [48.4, 35.5],
        "mean_e2e_s": [9.4, 5.5],
        "slo_percent": [97.6, 100.0],
        "energy_mj_token": [56.6, 44.2],
        "energy_run_mj_token": [30.0, 20.0],
        "expert_tb": [95.5, 29.0],
        "expert_gb_request": [955.0, 580.0],
    }
    for column, numbers in expected.items():
        assert values[column].tolist() == pytest.approx(numbers), column


def test_energy_parts_add_up_to_the_total() -> None:
    """Run, wait, HBM, FLOP and idle are all there is."""
    values = readable(compare_frame())
    parts = values.filter(regex=r"energy_[a-z]+_mj_token").sum(axis=1)
    np.testing.assert_allclose(parts, values["energy_mj_token"])


def test_a_ratio_without_denominator_is_unknown() -> None:
    """Nothing completed, or no energy: NaN, never infinite."""
    frame = _ONE.assign(completed=0, energy_per_token_j=0.0, energy_j=0.0)
    values = readable(frame)
    assert values["expert_gb_request"].isna().all()
    assert values["energy_run_mj_token"].isna().all()


def test_rows_are_sorted_by_rate_then_policy() -> None:
    """Known policies come first, in one order; new ones by name."""
    known = ["chunked-prefill", "layered-prefill", "orca", "static"]
    frame = compare_frame(tuple(known[::-1]), (1.2, 1.1))
    new = frame.tail(2).assign(scheduler=["b", "a"])
    frame = pd.concat([new, frame])
    assert policy_order(frame) == [*known, "a", "b"]
    values = readable(frame)
    assert values["scheduler"].tolist() == [*known, "a", "b", *known]
    assert values["rate_req_s"].tolist() == [1.1] * 6 + [1.2] * 4


def test_change_is_in_percent_and_slo_in_points() -> None:
    """The paper's table 2: TTFT 2.80 to 1.24 s is -56 %, E2E 9.4 to 5.5 s -41 %."""
    frame = _ONE.assign(
        mean_ttft_ms=[2800.0, 1240.0],
        mean_e2el_ms=[9400.0, 5500.0],
        slo_attainment=[0.5, 0.75],
        request_goodput=[0.0, 1.0],
    )
    change = change_percent(frame).iloc[0]
    assert round(change["mean_ttft_s"]) == -56
    assert round(change["mean_e2e_s"]) == -41
    assert change["slo_percent"] == pytest.approx(25.0)
    assert math.isnan(change["goodput_req_s"])


def test_change_needs_both_policies_at_a_rate() -> None:
    """A rate that one of them lacks is left out."""
    frame = compare_frame(rates=(1.0, 1.1)).iloc[1:]
    assert change_percent(frame)["rate_req_s"].tolist() == [1.1]
    assert change_percent(compare_frame(("orca",))).empty


def test_caption_names_model_gpus_dataset_and_profile() -> None:
    """The title says what was simulated."""
    text = caption(_ONE)
    assert text == (
        "Qwen/Qwen3-30B-A3B, 2 x h100_sxm, arxiv, profile layered-prefill-v1"
    )


def test_finite_rates_leave_out_closed_loop_and_all_at_once() -> None:
    """Only a positive finite rate has a place on a rate axis."""
    frame = compare_frame(("orca",), (1.0, 1.1, 1.2))
    frame["request_rate"] = [math.inf, 1.1, math.nan]
    check_compare(frame, "frame")
    assert finite_rates(frame)["request_rate"].tolist() == [1.1]


def test_a_written_frame_is_read_back(tmp_path: Path) -> None:
    """Reading changes nothing, also with unknown numbers."""
    frame = compare_frame().assign(slo_ttft_ms=math.nan)
    frame.to_csv(tmp_path / "c.csv", index=False)
    pd.testing.assert_frame_equal(
        read_compare(tmp_path / "c.csv"), frame, check_dtype=False
    )


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("request_rate", 0.0, "> 0"),
        ("request_rate", -1.0, "> 0"),
        ("slo_attainment", 1.5, r"\[0, 1\]"),
        ("mean_ttft_ms", -1.0, ">= 0"),
        ("p99_itl_ms", math.inf, "finite"),
        ("energy_j", "many", "number"),
    ],
)
def test_a_number_out_of_range_is_refused(
    column: str, value: object, allowed: str
) -> None:
    """The error names file, column, value and what is allowed, in one line."""
    frame = compare_frame()
    values = frame[column].astype(object).tolist()
    frame[column] = [*values[:3], value, *values[4:]]
    with pytest.raises(ConfigError, match=f"c.csv: {column} = {value}.*{allowed}"):
        check_compare(frame, "c.csv")


def test_missing_columns_are_named() -> None:
    """All of them, at once."""
    frame = compare_frame().drop(columns=["model", "p99_itl_ms"])
    with pytest.raises(ConfigError, match=r"missing column\(s\) model, p99_itl_ms$"):
        check_compare(frame, "c.csv")


def test_rows_must_belong_together() -> None:
    """No row twice, no mixture of models, no empty frame."""
    frame = compare_frame()
    with pytest.raises(ConfigError, match="request_rate = 1 appears twice"):
        check_compare(pd.concat([frame, frame.head(1)]), "c.csv")
    mixed = frame.assign(model=["a", *["b"] * (len(frame) - 1)])
    with pytest.raises(ConfigError, match="model = a, b; all rows must agree"):
        check_compare(mixed, "c.csv")
    with pytest.raises(ConfigError, match="no rows"):
        check_compare(frame.head(0), "c.csv")


@pytest.mark.parametrize("content", [b"", b'a,b\n"1,2\n3', b"\xff\xfe\x00"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    """One line, whatever the bytes."""
    path = tmp_path / "c.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_compare(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
