"""A configuration written out loads back; its hash names its meaning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sim.config import SECTIONS, Config
from sim.config_errors import ConfigKeyError
from sim.config_file import load_config
from sim.config_text import config_sha256, config_toml, json_schema
from tests.cases import cases


def printable(prefix: str = "") -> st.SearchStrategy[str]:
    return st.text(min_size=1).filter(str.isprintable).map(lambda text: prefix + text)


PATHS = ("path", "name", "data_dir", "profile", "outages")


def table_of(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some keys of a table with values that its JSON Schema allows."""
    fields = {name: values(name, field) for name, field in schema["properties"].items()}
    return st.fixed_dictionaries({}, optional=fields)


def values(name: str, field: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in field:
        return st.sampled_from(field["enum"])
    return st.one_of([option(name, each) for each in field.get("anyOf", [field])])


def option(name: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "const" in schema:
        return st.just(schema["const"])
    match schema["type"]:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "string":
            # names and paths that are absolute, as load_config leaves them
            return printable("/" if name in PATHS else "")
        case "integer":
            # small ones, lest the rules between keys refuse nearly all
            return st.integers(schema["minimum"], min(schema["maximum"], 8))
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    return st.floats(
        low,
        high,
        exclude_min="exclusiveMinimum" in schema,
        exclude_max="exclusiveMaximum" in schema,
    )


TABLES = st.fixed_dictionaries(
    {
        section: table_of(json_schema()["$defs"][model.__name__])
        for section, model in SECTIONS.items()
    }
)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    data: dict[str, Any] = draw(TABLES)
    data["seed"] = draw(st.integers(0, 2**63 - 1))
    data["cluster"] |= {"gpus_per_node": 64, "nodes": 4}
    data["parallel"].pop("expert_parallel_size", None)
    try:
        return Config.model_validate(data)
    except ConfigKeyError:
        assume(False)
        raise


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text") / "config.toml"


# The disk sets the pace, and rules between keys refuse many draws.
@settings(cases(10), suppress_health_check=[HealthCheck.filter_too_much])
@given(configs())
def test_what_is_written_loads_back(file: Path, config: Config) -> None:
    """Equal to the resolved configuration, of the same hash, and stable."""
    text = config_toml(config)
    file.write_text(text, encoding="utf-8")
    loaded = load_config(file)
    assert loaded == config.resolved()
    assert config_sha256(loaded) == config_sha256(config)
    assert config_toml(loaded) == text


def test_every_key_is_written() -> None:
    """Including those left at their defaults, with nothing unsaid."""
    text = config_toml(Config())
    for name in set(Config.model_fields) - {"pools"}:  # there are none
        assert f"\n[{name}]\n" in text or text.startswith(f"{name} = ")
    for model in SECTIONS.values():
        for name in model.model_fields:
            assert f"\n{name} = " in text
    assert "\nmax_num_batched_tokens = 8192\n" in text
    assert "\nduration_s = 600.0\n" in text
    assert '\ntpot_ms = "none"\n' in text


def test_infinite_rates_are_written() -> None:
    """TOML has a word for it."""
    flags = {"workload.request_rate": "inf", "workload.num_requests": 1}
    config = load_config(None, (), flags)
    assert "\nrequest_rate = inf\n" in config_toml(config)
    assert math.isinf(config.workload.request_rate)
    assert config_sha256(config) != config_sha256(Config())


def test_the_hash_is_of_the_meaning() -> None:
    """A default written out changes nothing, another value does."""
    same = load_config(None, ["engine.max_num_batched_tokens=8192", "slo.itl_ms=125"])
    assert config_sha256(same) == config_sha256(Config())
    hashes = {config_sha256(load_config(None, [f"seed={k}"])) for k in range(5)}
    assert len(hashes) == 5
    assert {len(each) for each in hashes} == {64}


def test_the_schema_describes_every_key() -> None:
    """Each with a sentence; unknown keys and None's spelling included."""
    schema = json_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["additionalProperties"] is False
    assert schema["properties"]["seed"]["description"]
    for model in SECTIONS.values():
        table = schema["$defs"][model.__name__]
        assert table["additionalProperties"] is False
        assert set(table["properties"]) == set(model.model_fields)
        for name, field in table["properties"].items():
            assert field["description"].endswith("."), name
            options = field.get("anyOf", [])
            assert ({"const": "none"} in options) == ({"type": "null"} in options), name


def test_the_schema_knows_what_may_be_switched_off() -> None:
    """Hand-made list of the keys that take none."""
    optional = {
        f"{section}.{name}"
        for section, model in SECTIONS.items()
        for name, field in json_schema()["$defs"][model.__name__]["properties"].items()
        if {"type": "null"} in field.get("anyOf", [])
    }
    assert optional == {
        *("model.num_experts", "model.top_k", "cluster.power_cap_w"),
        *(f"engine.{name}" for name in ("max_num_batched_tokens", "kv_cache_tokens")),
        *("engine.num_micro_batches", "engine.swap_space"),
        *("engine.tbt_target_ms", "parallel.prefill_replicas"),
        *(f"cluster.{name}" for name in ("outages", "mtbf_s", "repair_s")),
        *(f"parallel.{name}" for name in ("min_replicas", "startup_s")),
        *(f"moe.{name}" for name in ("prompt_skew", "decode_skew")),
        *(f"moe.{name}" for name in ("statistics", "affinity", "topic_period_s")),
        *("moe.placement", "moe.fit_statistics", "moe.rebalance_interval"),
        "calibration.data_dir",
        *(f"workload.{name}" for name in ("path", "max_concurrency")),
        *(f"workload.{name}" for name in ("num_requests", "duration_s")),
        *(f"slo.{name}" for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2el_ms")),
    }
