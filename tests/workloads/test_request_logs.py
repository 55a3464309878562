"""Per-request logs: both formats by hand, and what is wrong in one line."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest

from sim.errors import ConfigError
from workloads.request_logs import read_request_log

_SERVING_SIM = """request_id,arrival_s,input_tokens,output_tokens,queued_s,scheduled_s,\
first_token_s,last_token_s
b,0.3,20,1,0.5,0.6,0.7,0.7
a,0.0,10,3,0.1,0.1,0.2,0.6
"""
_LLM_D = """scenario,qps,arrival_s,input_tokens,output_tokens,ttft_s,generation_s,\
finish_s,session_id,turn
chat,4.0,0.0,689,275,0.125,8.22,8.345,,
chat,4.0,0.25,543,2,0.25,0.5,1.0,,
chat,8.0,0.0,689,275,0.5,8.22,8.72,,
"""


def test_engine_side_times_count_from_the_queue(tmp_path: Path) -> None:
    """Sorted by queued_s and moved to 0; TPOT (0.6 - 0.2) / 2, none for one token."""
    path = tmp_path / "log.csv"
    path.write_text(_SERVING_SIM)
    (run,) = read_request_log(path)
    first, second = run.workload.requests
    assert (first.prompt_tokens, first.output_tokens, first.arrival_ns) == (10, 3, 0)
    assert second.arrival_ns == 400_000_000
    assert run.ttft_ms.tolist() == pytest.approx([100.0, 200.0])
    assert run.tpot_ms[0] == pytest.approx(200.0)
    assert math.isnan(run.tpot_ms[1])


def test_runs_of_one_file_are_told_apart_by_scenario_and_rate(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(_LLM_D.encode()))
    four, eight = read_request_log(path)
    assert (four.name, eight.name) == ("chat 4", "chat 8")
    assert [r.arrival_ns for r in four.workload.requests] == [0, 250_000_000]
    assert four.ttft_ms.tolist() == [125.0, 250.0]
    assert four.tpot_ms.tolist() == pytest.approx([30.0, 500.0])
    assert len(eight.workload.requests) == 1


def test_rounds_of_a_session_share_what_was_said(tmp_path: Path) -> None:
    """Sessions 7 and 8 in turn; the third request of 7 is too short to follow."""
    header, *_ = _LLM_D.splitlines()
    rows = [(0, 10, 5, 7), (1, 10, 5, 8), (2, 20, 5, 7), (3, 25, 5, 7), (4, 9, 1, "")]
    lines = [f"chat,4,{t},{p},{o},1,1,1,{s},1" for t, p, o, s in rows]
    path = tmp_path / "log.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    (run,) = read_request_log(path)
    assert run.scenario == "chat"
    prefixes = [r.prefix for r in run.workload.requests]
    assert [(p.segments, p.ends) for p in prefixes] == [
        ((0, 1), (10, 15)),
        ((2, 3), (10, 15)),
        ((0, 1, 4, 5), (10, 15, 20, 25)),
        ((6, 7), (25, 30)),
        ((), ()),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "unknown header"),
        ("", "allowed: a CSV table"),
        (_LLM_D.splitlines()[0] + "\n", "0 rows"),
        (_LLM_D.replace("689", "0"), "row 1: input_tokens = 0"),
        (_LLM_D.replace("543", "5.5"), "row 2: input_tokens = 5.5"),
        (_LLM_D.replace("0.125", "-1"), "row 1: ttft_s = -1"),
        (_LLM_D.replace("0.125", "nan"), "row 1: ttft_s = nan"),
        (_LLM_D.replace("8.345,,", "8.345,me,"), "row 1: session_id = me"),
        (_SERVING_SIM.replace("0.2,0.6", "0.05,0.6"), "ttft = -0.05 s"),
    ],
)
def test_a_bad_log_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_request_log(path)
    assert "\n" not in str(error.value)


def test_a_missing_or_truncated_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_request_log(tmp_path / "none.csv")
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(_LLM_D.encode())[:60])
    with pytest.raises(ConfigError, match="allowed: a CSV"):
        read_request_log(path)
