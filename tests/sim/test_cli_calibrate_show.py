"""``calibrate show``: tables that fit the terminal, JSON that parses, files whole."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from calibration.leave_one_out import leave_one_out
from calibration.tables import load_tables
from sim.calibration_tables import profile_constants
from sim.cli_calibrate_show import show_command
from sim.errors import ConfigError
from sim.step_cost import HostTimes


def test_a_gpu_in_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors, rooflines, provenance and profiles, in 80 columns; files and figures."""
    monkeypatch.setenv("COLUMNS", "80")
    show_command("a100", tmp_path, as_json=False, quiet=False)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for text in (
        "vllm: leave-one-out error",
        "sglang: leave-one-out error",
        "decode_attention step bf16",
        "MoE rooflines",
        "a100_sxm: kernel tables, SHA-256",
        "aiconfigurator",
        "layered-prefill-v1",
        "lp-micro",
    ):
        assert text in printed
    errors = pd.read_csv(tmp_path / "loo.csv")
    assert set(errors["gpu"]) == {"a100_sxm"}
    assert set(errors["framework"]) == {"vllm", "sglang"}
    stems = {path.stem for path in tmp_path.glob("*.png")}
    assert stems == {path.stem for path in tmp_path.glob("*.svg")}
    tables = set(pd.read_csv(tmp_path / "points.csv")["table"])
    wanted = {f"coverage_{table}" for table in tables}
    assert stems == wanted | {"loo_vllm", "loo_sglang"}


def test_json_holds_the_same_errors(capsys: pytest.CaptureFixture[str]) -> None:
    show_command("a100_sxm", None, as_json=True, quiet=False)
    document = json.loads(capsys.readouterr().out)
    printed = pd.DataFrame(document["leave_one_out"])
    vllm = printed[printed["framework"] == "vllm"]
    known = leave_one_out(load_tables("a100_sxm"))
    assert vllm["mape"].tolist() == known["mape"].tolist()
    assert document["provenance"]["a100_sxm"]["tables"]["gemm"]["rows"] == 9240
    assert document["profiles"]["layered-prefill-v1"]["moe.memory"] > 1


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show_command("a100_sxm", None, as_json=False, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_an_unknown_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="a100_sxm"):
        show_command("a10", None, as_json=False, quiet=True)


def test_constants_are_named_by_their_path() -> None:
    """Those of a part of a profile carry the part's name."""
    host = HostTimes(decode_ns=1, prefill_ns=2, mixed_ns=3, layered_ns=4)
    found = profile_constants(host, "host.")
    assert (found["host.decode_ns"], found["host.layered_ns"]) == (1, 4)
