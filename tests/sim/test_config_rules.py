"""Defaults that hang on other keys, rules between keys, names against registries."""

from __future__ import annotations

import math
import pickle

import pytest

from sim.config import Config, check_names
from sim.config_errors import ConfigKeyError
from sim.config_file import load_config
from sim.config_sections import EngineConfig
from sim.errors import ConfigError


@pytest.mark.parametrize(
    ("scheduler", "explicit", "budget"),
    [
        ("chunked-prefill", None, 512),
        ("layered-prefill", None, 8192),
        ("orca", None, 8192),
        ("static", None, 8192),
        ("chunked-prefill", 2048, 2048),
        ("layered-prefill", 512, 512),
    ],
)
def test_token_budget_is_the_schedulers_usual(
    scheduler: str, explicit: int | None, budget: int
) -> None:
    """Chunks of 512, whole batches of 8192, unless given."""
    engine = EngineConfig(scheduler=scheduler, max_num_batched_tokens=explicit)
    assert engine.token_budget == budget
    resolved = Config(engine=engine).resolved().engine
    assert resolved.max_num_batched_tokens == budget


@pytest.mark.parametrize(
    ("flags", "duration_s"),
    [
        ({}, 600.0),
        ({"workload.num_requests": 5}, None),
        ({"workload.path": "/t.csv"}, None),
        ({"workload.duration_s": 7}, 7.0),
        ({"workload.duration_s": 7, "workload.num_requests": 5}, 7.0),
        ({"workload.duration_s": 7, "workload.path": "/t.csv"}, 7.0),
    ],
)
def test_arrivals_last_ten_minutes_when_nothing_ends_them(
    flags: dict[str, object], duration_s: float | None
) -> None:
    """Neither a number of requests nor a window nor a trace."""
    assert load_config(None, (), flags).resolved().workload.duration_s == duration_s


RULES = [
    (
        {"parallel.tensor_parallel_size": 4},
        "parallel.tensor_parallel_size = 4: must be <= cluster.gpus_per_node (2)",
    ),
    (
        {"cluster.gpus_per_node": 1},
        "parallel.tensor_parallel_size = 2: must be <= cluster.gpus_per_node (1)",
    ),
    (
        {"parallel.expert_parallel_size": 4, "cluster.gpus_per_node": 8},
        "parallel.expert_parallel_size = 4: must be 1 or equal to "
        "parallel.tensor_parallel_size (2)",
    ),
    (
        {"parallel.replicas": 2},
        "parallel.replicas = 2: must be <= 1, as many replicas of 2 GPUs as the nodes "
        "hold",
    ),
    (
        # 3 x 2 GPUs of 6, but one replica would straddle the nodes
        {"parallel.replicas": 3, "cluster.nodes": 2, "cluster.gpus_per_node": 3},
        "parallel.replicas = 3: must be <= 2, as many replicas of 2 GPUs as the nodes "
        "hold",
    ),
    (
        {"engine.scheduler": "chunked-prefill", "engine.max_num_seqs": 513},
        "engine.max_num_batched_tokens = 512: must be >= engine.max_num_seqs (513) "
        "with chunked-prefill",
    ),
    (
        {"workload.max_concurrency": 8},
        "workload.max_concurrency = 8: needs workload.num_requests",
    ),
    (
        {"workload.max_concurrency": 8, "workload.duration_s": 9.0},
        'workload.duration_s = 9.0: must be "none" with workload.max_concurrency',
    ),
    (
        {"workload.request_rate": math.inf, "workload.duration_s": 1.0},
        "workload.request_rate = inf: needs workload.num_requests",
    ),
]


@pytest.mark.parametrize(("flags", "message"), RULES)
def test_keys_that_contradict_each_other(
    flags: dict[str, object], message: str
) -> None:
    """The line names the key, its value, the rule, and where a side of it was set."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, (), flags)
    assert str(caught.value) == f"command line: {message}"


@pytest.mark.parametrize(
    "flags",
    [
        {"parallel.expert_parallel_size": 2},
        {"parallel.replicas": 4, "cluster.nodes": 2, "cluster.gpus_per_node": 5},
        {"engine.scheduler": "chunked-prefill", "engine.max_num_seqs": 512},
        {"engine.max_num_batched_tokens": 64},
        {"workload.max_concurrency": 8, "workload.num_requests": 9},
        {"workload.max_concurrency": 8, "workload.path": "/t.csv"},
        {"workload.request_rate": "inf", "workload.num_requests": 9},
        {"workload.request_rate": "inf", "workload.path": "/t.csv"},
    ],
)
def test_keys_that_just_fit_together(flags: dict[str, object]) -> None:
    """The other side of each rule's edge."""
    load_config(None, (), flags)


REGISTRIES = {
    "schedulers": ("layered-prefill", "chunked-prefill"),
    "queues": ("fcfs", "sjf", "vtc"),
    "datasets": ("arxiv", "sharegpt"),
    "profiles": ("vllm-0.24",),
    "gpus": ("h100_sxm", "a100_sxm"),
    "routers": ("round-robin",),
    "placements": ("linear", "exflow"),
}


@pytest.mark.parametrize(
    ("key", "near", "name"),
    [
        ("engine.scheduler", "layered_prefil", "layered-prefill"),
        ("workload.dataset", "ArXiv", "arxiv"),
        ("calibration.profile", "vllm-0.23", "vllm-0.24"),
        ("cluster.gpu", "H100", "h100_sxm"),
        ("parallel.router", "roundrobin", "round-robin"),
    ],
)
def test_unknown_names_get_the_nearest(key: str, near: str, name: str) -> None:
    """Whatever the registries hold when the program starts."""
    config = load_config(None, (), {key: near})
    with pytest.raises(ConfigKeyError) as caught:
        check_names(config, **REGISTRIES)
    assert caught.value.key == key
    assert str(caught.value).startswith(f'{key} = "{near}": must be one of "')
    assert str(caught.value).endswith(f'; did you mean "{name}"?')


def test_known_names_pass() -> None:
    """The defaults are in these registries."""
    check_names(Config(), **REGISTRIES)


def test_errors_survive_the_way_back_from_a_worker() -> None:
    """A process pool pickles them."""
    error = ConfigKeyError("a.b", 1, "must be 2", ("c",))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (str(copy), copy.related) == ("a.b = 1: must be 2", ("c",))
