"""Policies by word, alone and in a comparison at equal GPU count."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from reports.tables import comparison_table, gpu_table
from reports.text_plot import letters_for
from sim.compare import compare, compare_frame, plan_points
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.policies import Policy, parse_policy, policy_label
from sim.runner import run_config

TWO = (
    "parallel.replicas=2",
    "cluster.gpus_per_node=4",
    "workload.num_requests=24",
    "workload.dataset=sharegpt",
)


@pytest.mark.parametrize(
    ("word", "policy"),
    [
        ("orca", Policy("orca")),
        ("layered-prefill+sjf", Policy("layered-prefill", "sjf")),
        ("1p3d", Policy("chunked-prefill", None, 1, 3)),
        ("2P1D", Policy("chunked-prefill", None, 2, 1)),
        ("layered-prefill@1p1d", Policy("layered-prefill", None, 1, 1)),
        ("orca+vtc@10p20d", Policy("orca", "vtc", 10, 20)),
    ],
)
def test_words(word: str, policy: Policy) -> None:
    assert parse_policy(word) == policy


@pytest.mark.parametrize("word", ["", "+sjf", "1p", "p1d", "a b", "orca@", "1p1d2"])
def test_other_words_are_refused_in_one_line(word: str) -> None:
    with pytest.raises(ConfigError, match=r"^policy .*: must be SCHEDULER"):
        parse_policy(word)


@pytest.mark.parametrize("word", ["1p2d", "0p2d", "2p0d"])
def test_pools_need_a_replica_each_and_as_many_in_all(word: str) -> None:
    with pytest.raises(ConfigError, match=r"must be two pools of 1 or more and"):
        plan_points(None, TWO, schedulers=(word,), rates=(2.0,))


def test_a_label_is_the_word_again() -> None:
    base = load_config(None, TWO)
    for word in ("orca", "layered-prefill+sjf", "layered-prefill+vtc@1p1d"):
        config = load_config(None, TWO, parse_policy(word).settings(base))
        assert policy_label(config) == word


def test_a_pool_without_decode_replica_is_refused() -> None:
    with pytest.raises(ConfigError, match="the decode pool needs a replica"):
        load_config(None, ("parallel.prefill_replicas=1",))


def test_kv_transfers_of_a_run_add_up() -> None:
    """98,304 bytes a token (48 layers, 4 KV heads of 128, K and V, two bytes)."""
    config = load_config(None, (*TWO, "parallel.prefill_replicas=1"))
    result = run_config(config, check=True)
    several = result.requests["output_tokens"] > 1
    moved = int(result.requests["prompt_tokens"][several].sum())
    assert result.summary["kv_transfer_bytes"] == 98_304 * moved
    assert result.summary["kv_transfers"] == int(several.sum())
    assert result.summary["completed"] == 24
    assert set(result.requests["replica"][several]) == {1}


def test_disaggregation_compares_at_equal_gpu_count(tmp_path: Path) -> None:
    """Any set of policies, the same requests, one table, one frontier; laws held."""
    words = ("static", "orca", "chunked-prefill", "layered-prefill+sjf", "1p1d")
    plan = plan_points(None, TWO, schedulers=words, rates=(4.0,))
    result = compare(plan, tmp_path, jobs=1, check=True)
    frame = pd.read_csv(tmp_path / "compare.csv")
    assert frame["scheduler"].tolist() == [*words[:4], "chunked-prefill@1p1d"]
    assert frame["num_gpus"].tolist() == [4] * 5
    assert frame["workload_sha256"].nunique() == 1
    assert (frame["kv_transfers"] > 0).tolist() == [False] * 4 + [True]
    assert (tmp_path / "pareto.png").exists()
    means = frame.set_index("scheduler")
    # No prompt interrupts a decode: the p99 gap is below that of mixed batches.
    apart, mixed = means.loc["chunked-prefill@1p1d"], means.loc["chunked-prefill"]
    assert apart["p99_itl_ms"] < mixed["p99_itl_ms"]
    console = Console(width=80)
    summaries = compare_frame(result.points)
    for table in (comparison_table(summaries), gpu_table(summaries)):
        with console.capture() as text:
            console.print(table)
        assert "chunked@1p1d" in text.get()
        assert "…" not in text.get()


def test_letters_are_different_while_there_are_any() -> None:
    names = ["chunked", "layered", "layered+sjf", "chunked@1p1d", "chunked@1p3d", "l"]
    letters = letters_for(names)
    assert len(set(letters.values())) == len(names)
    assert letters["chunked"] == "c"
    assert letters["layered"] == "l"
    assert letters["layered+sjf"] in "ayered"
