"""Loading: files, precedence, paths, and one clear line for bad input."""

from __future__ import annotations

import json
import math
import os
from functools import partial
from pathlib import Path

import pytest

from sim.config import Config, check_names
from sim.config_file import load_config
from sim.config_syntax import MAX_FILE_BYTES
from sim.errors import ConfigError


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def error_of(path: Path | None, *overrides: str, **flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides, flags)
    message = str(caught.value)
    assert message.isprintable()
    return message.replace(f"{path.parent}/", "") if path else message


def test_nothing_given_is_the_main_job() -> None:
    """Qwen3-30B-A3B on two H100 under arXiv, layered prefill."""
    config = load_config(None)
    assert config == Config()
    assert (config.model.name, config.cluster.gpu) == ("Qwen/Qwen3-30B-A3B", "h100_sxm")
    assert config.cluster.gpus_per_node == config.parallel.tensor_parallel_size == 2


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    """One line may be enough, in either."""
    toml = write(tmp_path, "a.toml", "[engine]\nscheduler = 'orca'\nblock_size = 32\n")
    data = {"engine": {"scheduler": "orca", "block_size": 32}}
    as_json = write(tmp_path, "a.json", json.dumps(data))
    assert load_config(toml) == load_config(as_json)
    assert load_config(toml).engine.block_size == 32


def test_flag_over_set_over_file_over_default(tmp_path: Path) -> None:
    """The later --set wins among several."""
    path = write(tmp_path, "a.toml", "seed = 1\n[engine]\nblock_size=1\nmax_num_seqs=1")
    overrides = ["engine.block_size=2", "seed=5", "seed=2"]
    config = load_config(path, overrides, {"seed": 3, "engine.block_size": None})
    assert config.seed == 3
    assert config.engine.block_size == 2
    assert config.engine.max_num_seqs == 1
    assert config.engine.max_model_len == 16384


def test_only_the_winning_value_must_be_good(tmp_path: Path) -> None:
    """A bad value in a file can be put right from the command line."""
    path = write(tmp_path, "a.toml", "seed = -1")
    assert load_config(path, ["seed=4"]).seed == 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("inf", math.inf),
        ("2", 2.0),
        ("2.5", 2.5),
        (" 2.5 # per second", 2.5),
        ('"inf"', math.inf),
    ],
)
def test_set_reads_toml_values(text: str, value: float) -> None:
    """Numbers as TOML spells them."""
    overrides = [f"workload.request_rate={text}", "workload.num_requests=1"]
    assert load_config(None, overrides).workload.request_rate == value


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("a=b", "a=b"),
        ("'a=b'", "a=b"),
        ("1, 2", "1, 2"),
    ],
)
def test_set_takes_what_is_no_toml_as_text(text: str, name: str) -> None:
    """No quotes within quotes for the shell."""
    assert load_config(None, [f"model.name={text}"]).model.name == name


def test_set_gives_one_value_only() -> None:
    """A line end does not smuggle in a second key."""
    message = error_of(None, "model.name=1\nother = 2")
    assert message.startswith('--set: model.name = "1\\nother = 2": must be a string')


def test_none_switches_a_key_off(tmp_path: Path) -> None:
    """TOML has no null, JSON has."""
    assert load_config(None, ["slo.ttft_ms=none"]).slo.ttft_ms is None
    assert load_config(None, (), {"slo.itl_ms": "none"}).slo.itl_ms is None
    path = write(tmp_path, "a.json", '{"slo": {"ttft_ms": null}}')
    assert load_config(path).slo.ttft_ms is None


def test_paths_are_relative_to_where_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file to its folder, on the command line to the working directory."""
    (tmp_path / "study").mkdir()
    (tmp_path / "here").mkdir()
    text = "[workload]\npath='../t.csv'\n[model]\nname='m/config.json'"
    write(tmp_path / "study", "a.toml", text)
    monkeypatch.chdir(tmp_path / "here")
    config = load_config(Path("../study/a.toml"))
    assert config.workload.path == str(tmp_path / "t.csv")
    assert config.model.name == str(tmp_path / "study/m/config.json")
    config = load_config(None, ["workload.path=t.csv"], {"model.name": "c.json"})
    assert config.workload.path == str(tmp_path / "here/t.csv")
    assert config.model.name == str(tmp_path / "here/c.json")


def test_absolute_paths_and_catalogue_names_stay(tmp_path: Path) -> None:
    """A name that does not end in .json is no path."""
    text = "[workload]\npath='/data//t.csv'\n[model]\nname='Qwen/Qwen3-8B'"
    config = load_config(write(tmp_path, "a.toml", text))
    assert config.workload.path == "/data//t.csv"
    assert config.model.name == "Qwen/Qwen3-8B"


MAX_SEQS = "must be an integer >= 1 and <= 1000000"
LINES = [
    (
        "[engine]\nmax_num_seqs = -3",
        f"study.toml: engine.max_num_seqs = -3: {MAX_SEQS}",
    ),
    (
        "[engine]\nmax_num_seqs = 0x" + "f" * 4000,
        f"study.toml: engine.max_num_seqs = an integer of 16000 bits: {MAX_SEQS}",
    ),
    (
        "[engine]\nmax_num_seqs = {a = 1}",
        f"study.toml: engine.max_num_seqs = a table: {MAX_SEQS}",
    ),
    (
        "[engine]\nmax_num_seqs = 1979-05-27",
        f"study.toml: engine.max_num_seqs = 1979-05-27: {MAX_SEQS}",
    ),
    (
        "[engine]\nschedular = 'orca'",
        "study.toml: engine.schedular = \"orca\": unknown key 'schedular' in [engine]; "
        "did you mean 'scheduler'?",
    ),
    (
        "[slo]\nzzz = 1",
        "study.toml: slo.zzz = 1: unknown key 'zzz' in [slo]; known keys: "
        "ttft_ms, tpot_ms, itl_ms, e2el_ms",
    ),
    (
        "[engin]",
        "study.toml: engin = a table: unknown key 'engin' at the top level; "
        "did you mean 'engine'?",
    ),
    (
        "scheduler = 'orca'",
        "study.toml: scheduler = \"orca\": unknown key 'scheduler' at the top level; "
        "did you mean 'engine.scheduler'?",
    ),
    (
        "[workload]\nscheduler = 'orca'",
        "study.toml: workload.scheduler = \"orca\": unknown key 'scheduler' in "
        "[workload]; did you mean 'engine.scheduler'?",
    ),
    ("slo = 3", "study.toml: slo = 3: must be a table [slo]"),
    ("[[slo]]", "study.toml: slo = a list: must be a table [slo]"),
    (
        "[slo]\nitl_ms = nan",
        "study.toml: slo.itl_ms = nan: must be a number > 0 and <= 1000000000, "
        'or "none"',
    ),
    (
        "[workload]\nrequest_rate = 1e999",
        "study.toml: not valid TOML: number 1e999 is too large",
    ),
    ("seed = " + "1" * 4900, None),
    ("seed = " + "[" * 4000, "study.toml: not valid TOML: nested too deeply"),
    (
        "a." * 3000 + "a = 1",
        "study.toml: not valid TOML: a line of over 5000 characters",
    ),
    (b"seed = 1 # \xff", "study.toml: must be UTF-8; byte 11 is not"),
    (b"#" * (MAX_FILE_BYTES + 1), "study.toml: must be at most 65536 bytes"),
]


@pytest.mark.parametrize(("text", "message"), LINES)
def test_a_bad_file_is_one_clear_line(
    text: str | bytes, message: str | None, tmp_path: Path
) -> None:
    """File, key, value, what is allowed."""
    found = error_of(write(tmp_path, "study.toml", text))
    assert found == message or (message is None and found.startswith("study.toml: "))


JSON_LINES = [
    ('{"seed": 1, "seed": 2}', "not valid JSON: key 'seed' appears twice"),
    ('{"slo": {"itl_ms": NaN}}', "not valid JSON: NaN is not a JSON number"),
    (
        '{"slo": {"itl_ms": -Infinity}}',
        "not valid JSON: -Infinity is not a JSON number",
    ),
    ('{"slo": {"itl_ms": 1e999}}', "not valid JSON: number 1e999 is too large"),
    ('{"slo": {"itl_ms": "\\ud800"}}', 'slo.itl_ms = "\\ud800": must be a number'),
    ("[]", "not valid JSON: must be an object {...}"),
    ("", "not valid JSON: Expecting value: line 1 column 1 (char 0)"),
    ("[" * 60_000, "not valid JSON: nested too deeply"),
    ('{"slo": null}', "slo = none: must be a table [slo]"),
    ('{"seed": null}', "seed = none: must be an integer >= 0"),
    ('{"a\\nb": 1}', "a\\nb = 1: unknown key 'a\\nb' at the top level"),
    ('{"seed": ' + "1" * 9000 + "}", "not valid JSON: Exceeds the limit"),
]


@pytest.mark.parametrize(("text", "message"), JSON_LINES)
def test_a_bad_json_file_is_one_clear_line(
    text: str, message: str, tmp_path: Path
) -> None:
    """JSON has its own ways to go wrong."""
    assert error_of(write(tmp_path, "a.json", text)).startswith(f"a.json: {message}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, a folder, another format, no file name at all."""
    assert error_of(tmp_path / "no.toml") == (
        "no.toml: cannot be read: No such file or directory"
    )
    (tmp_path / "d.toml").mkdir()
    assert error_of(tmp_path / "d.toml") == "d.toml: cannot be read: Is a directory"
    assert error_of(tmp_path / "a.yaml") == (
        "a.yaml: must be a file that ends in .toml or .json"
    )
    assert "null byte" in error_of(tmp_path / "a\0.toml")


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    """Some editors put one."""
    path = write(tmp_path, "a.toml", b"\xef\xbb\xbfseed = 3")
    assert load_config(path).seed == 3


def test_errors_name_where_the_value_came_from(tmp_path: Path) -> None:
    """File, --set, flag; for a rule between keys a side of it that was set."""
    path = write(tmp_path, "a.toml", "[cluster]\ngpus_per_node = 1")
    assert error_of(path).startswith("a.toml: parallel.tensor_parallel_size = 2: ")
    assert error_of(None, "seed=-1").startswith("--set: seed = -1: ")
    assert error_of(None, seed=-1).startswith("command line: seed = -1: ")
    assert error_of(None, "seed") == "--set: seed: must be key=value"
    assert error_of(None, "engine.schedular=orca").startswith(
        "--set: engine.schedular = \"orca\": unknown key 'schedular' in [engine]; did"
    )


def test_further_checks_get_the_source_too(tmp_path: Path) -> None:
    """Names are checked by the composition root, errors still name the file."""
    path = write(tmp_path, "a.toml", "[engine]\nscheduler = 'orac'")
    check = partial(
        check_names,
        schedulers=["orca"],
        datasets=[],
        profiles=[],
        gpus=[],
        routers=[],
        placements=[],
        queues=[],
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["cluster.gpu=x"], {}, check)
    assert str(caught.value).startswith('--set: cluster.gpu = "x": must be one of')
    known = {"gpus": ["h100_sxm"], "routers": ["round-robin"]}
    with pytest.raises(ConfigError) as caught:
        load_config(path, (), {}, partial(check, **known))
    assert str(caught.value) == (
        f'{path}: engine.scheduler = "orac": must be one of "orca"; '
        'did you mean "orca"?'
    )
    with pytest.raises(ConfigError, match=r"^defaults: cluster.gpu = "):
        load_config(path, (), {}, check)


def test_loading_leaves_no_trace(tmp_path: Path) -> None:
    """Nothing is written, good or bad."""
    path = write(tmp_path, "a.toml", "seed = -1")
    error_of(path)
    load_config(path, ["seed=1"])
    assert os.listdir(tmp_path) == ["a.toml"]
