"""Pools of unlike replicas in a configuration: what it means, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.cli import main
from sim.compare import plan_points
from sim.config_file import load_config
from sim.config_text import config_sha256, config_toml, json_schema
from sim.errors import ConfigError
from sim.pools import pools_of, replica_nodes
from sim.recording import Recording
from sim.runner import prepare, run_config, run_prepared
from sim.studies.key import point_key
from sim.studies.min_replicas import find_min_replicas
from sim.studies.study import read_study
from sim.studies.target import Target
from sim.studies.worker import simulate
from tests.sim.test_pools import APART, LOAD, UNLIKE, config_of


def test_nodes_are_filled_in_order_with_one_kind_of_gpu_each() -> None:
    """4 GPUs a node: 2 + 2 | 2 + (TP 4 does not fit) | 4 | A100: 1 + 1 + 1."""
    config = config_of(
        "cluster.gpus_per_node=4",
        "cluster.nodes=4",
        "pools.a.replicas=3",
        "pools.b.tensor_parallel_size=4",
        "pools.c.gpu=a100_sxm",
        "pools.c.tensor_parallel_size=1",
        "pools.c.replicas=3",
    )
    assert replica_nodes(config, pools_of(config)) == (0, 0, 1, 2, 3, 3, 3)


def test_a_configuration_with_pools_survives_its_file(tmp_path: Path) -> None:
    """Counts and each pool's own token budget are in it; order counts in the hash."""
    config = config_of(*APART)
    assert (config.parallel.replicas, config.parallel.prefill_replicas) == (2, 1)
    path = tmp_path / "c.toml"
    path.write_text(config_toml(config))
    again = load_config(path)
    assert again == config.resolved()
    assert config_sha256(again) == config_sha256(config)
    budgets = {name: pool.max_num_batched_tokens for name, pool in again.pools.items()}
    assert budgets == {"p": 512, "d": 8192}
    one, two = (
        config_of("cluster.nodes=2", *order)
        for order in (
            ("pools.a.gpu=h100_sxm", "pools.b.gpu=a100_sxm"),
            ("pools.b.gpu=a100_sxm", "pools.a.gpu=h100_sxm"),
        )
    )
    assert config_sha256(one) != config_sha256(two)
    assert point_key(one) != point_key(two)
    assert "pools" not in config_toml(config_of())
    pool = json_schema()["$defs"]["PoolsConfig"]["additionalProperties"]
    assert pool == {"$ref": "#/$defs/PoolConfig"}


REFUSED = {
    "no decode worker": (
        ("pools.p.role=prefill",),
        'pools.p.role = "prefill": needs a pool of role "decode"',
    ),
    "no prefill worker": (
        ("pools.d.role=decode",),
        'pools.d.role = "decode": needs a pool of role "prefill"',
    ),
    "half and whole": (
        ("pools.p.role=prefill", "pools.d.role=decode", "pools.x.replicas=1"),
        'pools.x.role = "both": must be "prefill" or "decode"',
    ),
    "unknown GPU": (
        ("pools.a.gpu=v100",),
        'pools.a.gpu = "v100": must be one of',
    ),
    "a model that does not fit": (
        (
            *("pools.a.replicas=1", "pools.b.gpu=l40s", "cluster.nodes=2"),
            "pools.b.tensor_parallel_size=1",
        ),
        "pools.b: ",
    ),
    "no bandwidth": (
        ("pools.a.link_bandwidth_scale=0.0",),
        "pools.a.link_bandwidth_scale = 0.0: must be a number > 0",
    ),
    "hardly any bandwidth": (
        (
            *("pools.p.role=prefill", "pools.d.role=decode", "cluster.gpus_per_node=4"),
            "pools.d.link_bandwidth_scale=1e-300",
        ),
        "pools.d.link_bandwidth_scale = 1e-300: leaves less than 1 byte/s",
    ),
    "too few nodes": (
        ("pools.a.replicas=1", "pools.b.gpu=a100_sxm"),
        "cluster.nodes = 1: the replicas of [pools] need 2 nodes",
    ),
    "a replica larger than its node": (
        ("pools.a.tensor_parallel_size=4",),
        "pools.a.tensor_parallel_size = 4: must be <= cluster.gpus_per_node (2)",
    ),
    "a replica larger than the node of its pool": (
        ("pools.a.gpus_per_node=1",),
        "must be <= cluster.gpus_per_node (1) (pool a)",
    ),
    "unknown scheduler": (
        ("pools.a.scheduler=orcas",),
        'did you mean "orca"?',
    ),
    "a typing error": (
        ("pools.a.replica=2",),
        "unknown key 'replica' in [pools.a]; did you mean 'replicas'?",
    ),
    "no table": (("pools.a=3",), "pools.a = 3: must be a table [pools.a]"),
    "no tables": (("pools=3",), "pools = 3: must be tables [pools.NAME]"),
    "no name": (("pools.A-1.replicas=3",), "the name of a pool is 1 to 32 of"),
    "no number": (
        ("pools.a.replicas=0",),
        "pools.a.replicas = 0: must be an integer >= 1",
    ),
    "replicas twice": (
        ("pools.a.replicas=2", "parallel.replicas=3", "cluster.nodes=2"),
        "parallel.replicas = 3: must be 1 or 2 with [pools]",
    ),
    "failures": (
        ("pools.a.replicas=1", "cluster.mtbf_s=9.0", "cluster.repair_s=9.0"),
        "cluster.mtbf_s = 9.0: must be none with [pools]",
    ),
    "a pipeline": (
        (
            *("pools.a.replicas=1", "parallel.pipeline_parallel_size=2"),
            "cluster.gpus_per_node=4",
        ),
        "parallel.pipeline_parallel_size = 2: must be 1 with [pools]",
    ),
    "a host pool": (
        ("pools.a.replicas=1", "engine.preemption_mode=swap"),
        'engine.preemption_mode = "swap": must be recompute with [pools]',
    ),
    "SMs that phases share": (
        ("pools.a.replicas=1", "pools.a.scheduler=multiplexed-prefill"),
        "must be another than multiplexed-prefill with [pools]",
    ),
    "too much KV cache": (
        ("pools.a.kv_cache_tokens=99999999",),
        "pools.a.kv_cache_tokens = 99999999: must be <=",
    ),
    "too many": (
        tuple(f"pools.p{k}.replicas=1" for k in range(17)),
        "there may be at most 16 pools",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_line_and_exit_2(
    name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words, message = REFUSED[name]
    sets = [part for word in words for part in ("--set", word)]
    with pytest.raises(SystemExit) as caught:
        main(["run", "--out", str(tmp_path / "out"), *sets])
    out, err = capfd.readouterr()
    assert (caught.value.code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "out").exists()


def test_what_does_not_go_with_pools_says_so(tmp_path: Path) -> None:
    config = config_of("pools.a.replicas=1", *LOAD)
    with pytest.raises(ConfigError, match="pools are not drawn"):
        run_prepared(prepare(config), trace=True)
    with pytest.raises(ConfigError, match=r"a sweep over pools\.NAME\.replicas"):
        find_min_replicas(config, Target(), tmp_path)


def test_run_prints_each_pool(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sets = [part for word in UNLIKE for part in ("--set", word)]
    with pytest.raises(SystemExit) as caught:
        main(["run", "--out", str(tmp_path / "out"), *sets])
    out, err = capfd.readouterr()
    assert (caught.value.code or 0, err) == (0, "")
    assert "pool old (both): 2 replica(s) of 2 x a100_sxm" in out
    assert "4 x a100_sxm" in out
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert written["pool_old_gpu"] == "a100_sxm"


def test_policies_of_a_comparison_are_those_of_every_pool() -> None:
    """Pools stay as they are, but for the scheduler they have not set themselves."""
    plan = plan_points(None, UNLIKE, schedulers=["orca", "static"], rates=[2.0])
    assert [point.scheduler for point in plan.points] == ["orca", "static"]
    for point in plan.points:
        pools = pools_of(point.config)
        assert [pool.replicas for pool in pools] == [1, 2]
        assert {p.config.engine.scheduler for p in pools} == {point.scheduler}


def test_any_key_of_a_pool_can_be_varied(tmp_path: Path) -> None:
    """In a study file too, where pools are tables of tables."""
    path = tmp_path / "study.toml"
    path.write_text(
        "config.cluster.nodes = 3\n"
        'config.pools.b.gpu = "a100_sxm"\n'
        "[[vary]]\npools.b.replicas = [1, 2]\npools.a.max_num_seqs = 8\n"
    )
    study = read_study(path)
    configs = [study.config(settings) for settings in study.settings]
    assert [c.parallel.replicas for c in configs] == [2, 3]
    assert {c.pools.items()[1][1].max_num_seqs for c in configs} == {8}
    first = simulate(config_of(*UNLIKE), Recording.SUMMARY).summary
    assert first == run_config(config_of(*UNLIKE)).summary
