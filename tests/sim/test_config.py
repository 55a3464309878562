"""Every key's type and bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from sim.config import SECTIONS, Config
from sim.config_file import load_config
from sim.errors import ConfigError
from workloads import limits

MILLION = 1_000_000
Edges = dict[str, tuple[list[Any], list[Any]]]
# key: (values at the edges and inside, values just outside)
INTEGERS: Edges = {
    "cluster.nodes": ([1, MILLION], [0, MILLION + 1]),
    "model.num_experts": ([1, MILLION, None], [0, MILLION + 1]),
    "model.top_k": ([1, MILLION, None], [0, MILLION + 1]),
    "cluster.gpus_per_node": ([1, MILLION], [0, MILLION + 1]),
    "parallel.tensor_parallel_size": ([1, MILLION], [0, MILLION + 1]),
    "parallel.expert_parallel_size": ([1, MILLION], [0, MILLION + 1]),
    "parallel.pipeline_parallel_size": ([1, MILLION], [0, MILLION + 1]),
    "parallel.data_parallel_size": ([1, MILLION], [0, MILLION + 1]),
    "moe.redundant_experts": ([0, MILLION], [-1, MILLION + 1]),
    "moe.topics": ([1, MILLION], [0, MILLION + 1]),
    "moe.rebalance_interval": ([1, MILLION, None], [0, MILLION + 1]),
    "moe.rebalance_window": ([1, MILLION], [0, MILLION + 1]),
    "moe.rebalance_layers_per_step": ([1, MILLION], [0, MILLION + 1]),
    "parallel.replicas": ([1, 10_000], [0, 10_001]),
    "parallel.min_replicas": ([1, 10_000, None], [0, 10_001]),
    "parallel.target_outstanding": ([1, MILLION], [0, MILLION + 1]),
    "parallel.prefill_replicas": ([1, 10_000, None], [0, 10_001]),
    "engine.max_num_batched_tokens": ([1, 10**7, None], [0, -1, 10**7 + 1]),
    "engine.num_micro_batches": ([1, 1024, None], [0, 1025]),
    "engine.num_layer_groups": ([1, MILLION], [0, MILLION + 1]),
    "engine.max_num_seqs": ([1, MILLION], [0, -3, MILLION + 1]),
    "engine.max_model_len": ([1, 10**7], [0, 10**7 + 1]),
    "engine.block_size": ([1, 8192], [0, 8193]),
    "engine.kv_cache_tokens": ([1, 10**12, None], [0, 10**12 + 1]),
    "workload.max_concurrency": ([1, 10**7, None], [0, 10**7 + 1]),
    "workload.num_requests": ([1, 10**7, None], [0, 10**7 + 1]),
    "workload.num_clients": ([1, MILLION], [0, MILLION + 1]),
    "workload.random_input_len": ([1, 10**7], [0, 10**7 + 1]),
    "workload.random_output_len": ([1, 10**7], [0, 10**7 + 1]),
}
TINY = math.ulp(0.0)
FLOATS: Edges = {
    "cluster.hbm_bandwidth_scale": ([TINY, 1, 100.0], [0, 100.1]),
    "cluster.flops_scale": ([TINY, 1, 100.0], [0, 100.1]),
    "cluster.link_bandwidth_scale": ([TINY, 1, 100.0], [0, 100.1]),
    "cluster.hbm_capacity_scale": ([TINY, 1, 100.0], [0, 100.1]),
    "cluster.mtbf_s": ([1e-9, 1e9, None], [0, 2e9]),
    "cluster.repair_s": ([1e-9, 1e9, None], [0, 2e9]),
    "parallel.startup_s": ([0, 1e6, None], [-TINY, 1e7]),
    "parallel.scale_down_delay_s": ([0, 1e6], [-TINY, 1e7]),
    "cluster.power_cap_w": ([TINY, 1e5, None], [0, -1, 2e5]),
    "engine.gpu_memory_utilization": ([TINY, 1.0], [0, 1.01]),
    "engine.prefill_sm_share": ([0.01, 0.99], [0, 1, 0.009]),
    "engine.swap_space": ([TINY, 1e6, None], [0, -1, 2e6]),
    "engine.tbt_target_ms": ([TINY, 1e9, None], [0, -1, 2e9]),
    "moe.prompt_skew": ([0, 10, None], [-TINY, 10.1]),
    "moe.decode_skew": ([0, 10, None], [-TINY, 10.1]),
    "moe.affinity": ([0, 1, None], [-TINY, 1.1]),
    "moe.topic_period_s": ([1e-9, 1e9, None], [0, 2e9]),
    "moe.rebalance_min_gain": ([0, 1e3], [-TINY, 1001.0]),
    "workload.client_skew": ([0, 10], [-TINY, 10.1]),
    "workload.request_rate": ([0.001, 1e9, math.inf], [0, 0.0009, 2e9, -math.inf]),
    "workload.burstiness": ([0.001, 1e6], [0, 2e6]),
    "workload.duration_s": ([1e-9, 1e9, None], [0, 2e9]),
    "workload.session_turns_mean": ([1, 1000.0], [0, 0.9, 1001.0]),
    "workload.session_turn_delay_mean_s": ([0, 1e6], [-TINY, 1e7]),
    "workload.random_range_ratio": ([0, math.nextafter(1, 0)], [-TINY, 1]),
    "slo.ttft_ms": ([TINY, 1e9, None], [0, -1, 2e9]),
    "slo.tpot_ms": ([TINY, 1e9, None], [0, -1, 2e9]),
    "slo.itl_ms": ([TINY, 1e9, None], [0, -1, 2e9]),
    "slo.e2el_ms": ([TINY, 1e9, None], [0, -1, 2e9]),
    "cost.usd_per_gpu_hour": ([0, 1e6], [-TINY, 1e6 + 1]),
}
SWITCHES = ("engine.enable_prefix_caching",)
CHOICES = {
    "model.dtype": ["auto", "bfloat16", "fp8", "mxfp4"],
    "engine.layer_group_rule": ["code", "paper"],
    "engine.kv_cache_dtype": ["auto", "fp8"],
    "engine.preemption_mode": ["recompute", "swap"],
    "engine.fidelity": ["iteration", "kernel"],
    "engine.overlap": ["none", "tp-all-reduce", "two-batch"],
    "moe.routing": ["skewed", "uniform"],
    "parallel.kv_transfer": ["whole", "chunk-wise", "layer-wise"],
    "moe.communication": ["tp_allreduce", "ep_home", "context_coherent"],
    "moe.all_to_all": ["nccl", "deepep"],
    "moe.dispatch_dtype": ["bfloat16", "fp8"],
    "moe.rebalance_mode": ["blocking", "async"],
}
NAMES = (
    "model.name",
    "cluster.gpu",
    "cluster.outages",
    "parallel.router",
    "engine.scheduler",
    "moe.placement",
    "moe.statistics",
    "moe.fit_statistics",
    "engine.queue",
    "calibration.profile",
    "calibration.data_dir",
    "workload.dataset",
    "workload.path",
)
EVERY_KEY = {
    f"{section}.{name}"
    for section in SECTIONS
    for name in SECTIONS[section].model_fields
}


def accepted(key: str, value: object) -> object:
    """The value as its table keeps it, apart from rules between keys."""
    section, _, name = key.partition(".")
    return getattr(SECTIONS[section].model_validate({name: value}), name)


def error_of(**flags: object) -> str:
    """The message when flags (``__`` for the dot) are refused."""
    given = {key.replace("__", "."): value for key, value in flags.items()}
    with pytest.raises(ConfigError) as caught:
        load_config(None, (), given)
    return str(caught.value)


def test_the_tables_below_cover_every_key() -> None:
    """A key without bounds here is a key nobody checked."""
    assert {*INTEGERS, *FLOATS, *SWITCHES, *CHOICES, *NAMES} == EVERY_KEY
    # tables [pools.NAME] have whatever names; tests/sim/test_pools.py
    assert set(Config.model_fields) - set(SECTIONS) == {"seed", "pools"}


@pytest.mark.parametrize("key", [*INTEGERS, *FLOATS])
def test_numbers_at_their_bounds_are_kept(key: str) -> None:
    """Both ends of the range are in it, unchanged."""
    for value in {**INTEGERS, **FLOATS}[key][0]:
        assert accepted(key, value) == value


@pytest.mark.parametrize("key", SWITCHES)
def test_switches_are_true_or_false(key: str) -> None:
    """And nothing that Python would take for it."""
    for value in (True, False):
        assert accepted(key, value) is value
    for value, shown in ((1, "1"), (0, "0"), ("true", '"true"'), ([], "a list")):
        message = error_of(**{key: value})
        assert message == f"command line: {key} = {shown}: must be true or false"


@pytest.mark.parametrize("key", [*INTEGERS, *FLOATS])
def test_numbers_outside_their_bounds_are_one_line_errors(key: str) -> None:
    """The line has source, key and what is allowed."""
    noun = "an integer" if key in INTEGERS else "a number"
    for value in {**INTEGERS, **FLOATS}[key][1]:
        message = error_of(**{key: value})
        assert message.startswith(f"command line: {key} = {value}: must be {noun} >")
        assert message.isprintable()


@pytest.mark.parametrize("key", sorted({"seed", *INTEGERS, *FLOATS}))
@pytest.mark.parametrize(
    "value", ["12", True, math.nan, [1], {"a": 1}, 10**400, "", b"1", 1j], ids=repr
)
def test_no_number_is_made_of_something_else(key: str, value: object) -> None:
    """Texts, truth values, NaN and numbers no double can hold are refused."""
    assert f": {key} = " in error_of(**{key: value})


@pytest.mark.parametrize("key", sorted({*FLOATS} - {"workload.request_rate"}))
def test_infinity_is_a_rate_only(key: str) -> None:
    """No other key may be infinite."""
    assert f"{key} = inf: must be a number" in error_of(**{key: math.inf})


@pytest.mark.parametrize("key", sorted(INTEGERS))
def test_an_integer_is_not_a_float(key: str) -> None:
    """2.0 where an integer belongs is a slip worth telling."""
    assert f"{key} = 2.0: must be an integer" in error_of(**{key: 2.0})


def test_seed_spans_the_integers_of_toml() -> None:
    """From 0 to 2**63 - 1."""
    assert Config(seed=2**63 - 1).seed == 2**63 - 1
    allowed = "must be an integer >= 0 and <= 9223372036854775807"
    assert error_of(seed=-1) == f"command line: seed = -1: {allowed}"
    assert error_of(seed=2**63).endswith(allowed)


def test_inf_may_be_written_as_text() -> None:
    """JSON has no infinity."""
    assert accepted("workload.request_rate", "inf") == math.inf


@pytest.mark.parametrize("key", sorted(CHOICES))
def test_choices_name_all_there_are(key: str) -> None:
    """Each is accepted; another is told what there is, and the nearest."""
    listed = ", ".join(f'"{choice}"' for choice in CHOICES[key])
    for choice in CHOICES[key]:
        assert accepted(key, choice) == choice
        assert error_of(**{key: f"{choice}x"}) == (
            f'command line: {key} = "{choice}x": must be one of {listed}; '
            f'did you mean "{choice}"?'
        )
    assert error_of(**{key: 8}) == (f"command line: {key} = 8: must be one of {listed}")


@pytest.mark.parametrize("key", NAMES)
@pytest.mark.parametrize("value", ["", "a\nb", "a\x00", "\ud800", "x" * 4097, 7])
def test_names_are_printable_texts(key: str, value: Any) -> None:
    """Nothing that would break a line, a terminal or a file name."""
    message = error_of(**{key: value})
    assert "must be a string of 1 to 4096 printable characters" in message
    assert message.isprintable()


def test_bounds_are_those_of_the_workloads() -> None:
    """The two modules may not import each other, so a test keeps them one."""
    workload = SECTIONS["workload"].model_json_schema()["properties"]

    def ends(name: str) -> tuple[float, float]:
        schema = workload[name].get("anyOf", [workload[name]])[0]
        return schema["minimum"], schema["maximum"]

    assert ends("request_rate") == (limits.MIN_RATE, limits.MAX_RATE)
    assert ends("burstiness") == (limits.MIN_BURSTINESS, limits.MAX_BURSTINESS)
    assert ends("duration_s")[1] == limits.MAX_TIME_S
    assert ends("num_requests") == ends("max_concurrency") == (1, limits.MAX_REQUESTS)
    assert ends("random_input_len") == ends("random_output_len")
    assert ends("random_input_len") == (1, limits.MAX_TOKENS)


def test_configurations_are_frozen() -> None:
    """A run cannot change what it was asked."""
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        config.engine.max_num_seqs = 1
