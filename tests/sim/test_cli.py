"""The command line: what it prints, and the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.cli_output import warn

LOAD = "from sim.cli import main"
ENTRY = f"{LOAD}; main()"
SMALL = ["--set", "workload.num_requests=12", "--set", "workload.request_rate=2"]


def command(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The real command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", ENTRY, *words],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def environment(**env: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | env


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", [None, "run", "compare", "list", "schema"])
def test_help_has_examples_and_fits_a_terminal(name: str | None) -> None:
    """In 80 columns, without loading pandas."""
    words = ["--help"] if name is None else [name, "--help"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    assert (f"  servescope {name}" in result.output) == (name is not None)


def test_help_and_version_are_quick_to_load() -> None:
    """The command's own module imports none of the heavy ones."""
    code = f"import sys; {LOAD}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "typer" in loaded
    assert not {"pandas", "numpy", "pydantic", "matplotlib", "joblib"} & set(loaded)
    assert command("--version").stdout.startswith("servescope ")


def test_list_names_what_a_configuration_may_use() -> None:
    """As a table in 80 columns, and as JSON."""
    text = CliRunner().invoke(app, ["list"]).stdout
    assert max(map(len, text.splitlines())) <= 80
    listed = json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)
    for kind, name in (
        ("models", "Qwen/Qwen3-30B-A3B"),
        ("gpus", "h100_sxm"),
        ("datasets", "arxiv"),
        ("schedulers", "layered-prefill"),
        ("profiles", "vllm-0.24"),
        ("routers", "round-robin"),
    ):
        assert name in {entry["name"] for entry in listed[kind]}
        assert name in text
        one = json.loads(CliRunner().invoke(app, ["list", kind, "--json"]).stdout)
        assert one == {kind: listed[kind]}


def test_schema_names_every_section() -> None:
    """And says which schema language it is."""
    schema = json.loads(CliRunner().invoke(app, ["schema"]).stdout)
    assert schema["$schema"].endswith("2020-12/schema")
    assert {"seed", "model", "workload", "slo"} <= set(schema["properties"])


def test_run_says_what_it_runs_and_what_came_out() -> None:
    """KV cache and host overhead first, then tables; at most 80 columns."""
    result = CliRunner().invoke(app, ["run", *SMALL])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    summary = json.loads(Path("servescope-run/result.json").read_text())
    assert f"= {summary['kv_cache_tokens']} tokens" in result.stdout
    assert "host overhead (ms): 2.40 decode" in result.stdout
    ttft = next(line for line in lines if line.startswith(" TTFT (s)")).split()
    assert ttft[2] == f"{summary['mean_ttft_ms'] / 1e3:.2f}"
    assert lines[-1] == "written: servescope-run"


def test_json_is_the_result_and_nothing_else() -> None:
    """Notes go to stderr, and --quiet silences them."""
    loud, quiet = (
        command("run", *SMALL, "--json"),
        command("run", *SMALL, "--json", "-q"),
    )
    written = json.loads(Path("servescope-run/result.json").read_text())
    assert json.loads(loud.stdout) == json.loads(quiet.stdout) == written
    assert "KV cache" in loud.stderr
    assert quiet.stderr == ""
    assert CliRunner().invoke(app, ["run", *SMALL, "-q"]).output == ""


def test_compare_prints_tables() -> None:
    """The points and their paired differences."""
    words = ["compare", *SMALL, "--jobs", "1", "--out", "out"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "layered against chunked prefill" in shown.stdout
    assert "95 %" in shown.stdout
    assert shown.stdout.endswith("TTFT-TBT frontier: out/pareto.png\nwritten: out\n")


@pytest.mark.long
def test_compare_prints_json() -> None:
    words = ["compare", *SMALL, "--jobs", "1", "--out", "out", "--json"]
    document = json.loads(CliRunner().invoke(app, words).stdout)
    assert [p["scheduler"] for p in document["points"]] == [
        "chunked-prefill",
        "layered-prefill",
    ]
    assert {row["metric"] for row in document["paired"]} == {
        "ttft_ms",
        "e2el_ms",
        "max_itl_ms",
    }


def test_requests_that_were_not_served_are_on_stderr() -> None:
    """Even with --quiet."""
    overrides = ("workload.dataset=random", "engine.max_model_len=1000")
    words = [word for override in overrides for word in ("--set", override)]
    result = CliRunner().invoke(app, ["run", *SMALL, *words, "-q"])
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == (
        "warning: 12 of 12 requests were rejected; see requests.csv.gz\n"
    )


def test_times_beyond_the_profiled_ranges_are_on_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Above 5 % of the time of any run; a run without iterations has no share."""

    def said(*shares: float | None) -> str:
        warn([{"extrapolated_fraction": s, "rejected": 0} for s in shares])
        return capfd.readouterr().err

    assert said(None, 0.05) == ""
    assert said(None, 0.051, 0.01).startswith("warning: 5.1 % of the time lies outside")


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_bytes_whatever_the_processes() -> None:
    """Every file, pictures too, for one process or two and any hash seed."""
    words = ["compare", *SMALL, "--rates", "2", "--iterations", "-q"]
    for out, jobs, seed in (("a", "1", "0"), ("b", "2", "123")):
        done = command(*words, "--out", out, "--jobs", jobs, PYTHONHASHSEED=seed)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    first, second = _digests(Path("a")), _digests(Path("b"))
    assert first == second
    assert len(first) == 3 + 8 + (2 + 8) * 6  # tables, figures, runs


def test_interrupt_is_130_and_quiet() -> None:
    """Ctrl-C during the main job; no result.json, for the run is not complete."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, "run", "--set", "workload.duration_s=6000"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert process.stdout is not None
    assert "Qwen3-30B-A3B" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert not Path("servescope-run/result.json").exists()


def test_reader_that_went_away_is_no_error() -> None:
    """`servescope schema | head -1` prints no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, "schema"],
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.stderr == ""
