"""The command line on bad input: exit codes, one clear line, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app, main
from sim.cli_compare import parse_rates
from sim.errors import ConfigError, SimulationError

SMALL = ("--set", "workload.num_requests=12")
BAD_VALUES = {
    "engine.max_num_seq=1": "did you mean 'max_num_seqs'?",
    "seed=x": 'seed = "x": must be an integer',
    "engine.block_size=1.5": "engine.block_size = 1.5: must be an integer",
    "workload.request_rate=nan": "workload.request_rate = nan: must be a number",
    "workload.request_rate=-1": "workload.request_rate = -1: must be a number",
    "slo.itl_ms=nan": "slo.itl_ms = nan: must be a number",
    "workload.path=missing.csv": "missing.csv: No such file",
    "cluster.gpu=v100": 'cluster.gpu = "v100": must be one of',
    "engine.scheduler=orcas": 'did you mean "orca"?',
    "engine.max_model_len=9999999": "does not fit one such request",
    "model.name=nobody/knows": 'unknown model "nobody/knows"',
    "no-equals-sign": "must be key=value",
}


def failure(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code and the only line on stderr, with nothing on stdout."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert isinstance(caught.value.code, int)
    return caught.value.code, err


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["run", "compare"])
@pytest.mark.parametrize("override", BAD_VALUES)
def test_bad_input_is_one_line_and_exit_2(
    name: str, override: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written, not even the directory."""
    if name == "compare" and "scheduler" in override:
        words = [name, "--schedulers", "orcas"]
    else:
        words = [name, "--set", override]
    code, line = failure(capfd, *words)
    assert code == 2
    assert BAD_VALUES[override] in line
    assert not list(Path().iterdir())


def test_model_that_does_not_fit(capfd: pytest.CaptureFixture[str]) -> None:
    """235 B parameters of two bytes on one GPU of 80 GiB."""
    overrides = (
        "model.name=Qwen/Qwen3-235B-A22B",
        "cluster.gpus_per_node=1",
        "parallel.tensor_parallel_size=1",
    )
    code, line = failure(capfd, "run", *(w for o in overrides for w in ("--set", o)))
    assert code == 2
    assert "does not fit in memory: 470.2 GB of bfloat16 weights" in line


def test_kernels_nobody_profiled(capfd: pytest.CaptureFixture[str]) -> None:
    """gpt-oss on A100."""
    overrides = ("model.name=openai/gpt-oss-20b", "cluster.gpu=a100_sxm")
    code, line = failure(capfd, "run", *(w for o in overrides for w in ("--set", o)))
    assert code == 2
    assert "a100_sxm: no prefill_attention kernel was profiled" in line


@pytest.mark.parametrize(
    "rates",
    ["", "a", "1,,2", "1:2", "1:2:0", "2:1:1", "1:nan:1", "1:2:-1", "1:1e9:1e-9"],
)
def test_rates_that_are_none(rates: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither a range nor a list."""
    code, line = failure(capfd, "compare", "--rates", rates)
    assert code == 2
    assert f'--rates = "{rates}": must be FIRST:LAST:STEP' in line


def test_ranges_of_rates_are_exact_and_inclusive() -> None:
    """Decimal steps, as typed."""
    assert parse_rates("1.0:1.8:0.1") == [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8]
    assert parse_rates("1:2:0.3") == [1, 1.3, 1.6, 1.9]
    assert parse_rates("2:2:1") == [2]
    assert parse_rates("1.25, inf") == [1.25, float("inf")]
    with pytest.raises(ConfigError, match="1 to 1000 rates"):
        parse_rates("1:1001:1")
    assert len(parse_rates("1:1000:1")) == 1000


def test_output_that_cannot_be(capfd: pytest.CaptureFixture[str]) -> None:
    """A file stands where the directory should go; known before the run."""
    Path("taken").write_text("mine")
    code, line = failure(capfd, "run", *SMALL, "--out", "taken")
    assert code == 2
    assert "taken: cannot be written" in line
    assert Path("taken").read_text() == "mine"


def test_broken_invariant_is_exit_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line, however many the message has, and the command that replays it."""

    def broken(*_: object, **__: object) -> None:
        raise SimulationError("layer 3\nran twice")

    monkeypatch.setattr("sim.cli_run.run_prepared", broken)
    again = "servescope run servescope-run/failed.toml --check"
    line = f"error: layer 3 ran twice; replay: {again}\n"
    assert failure(capfd, "run", *SMALL, "-q") == (1, line)


def test_usage_errors_are_exit_2() -> None:
    """Unknown commands and options, and values that an option cannot have."""
    for words in (
        ["rum"],
        ["run", "--fast"],
        ["list", "cats"],
        ["compare", "--jobs=0"],
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2
        assert "Error: " in result.output
