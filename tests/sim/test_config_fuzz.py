"""Whatever a file or the command line holds, it loads or is one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sim.config import SECTIONS, Config
from sim.config_file import load_config
from sim.config_pools import PoolConfig
from sim.config_text import config_toml
from sim.errors import ConfigError


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def only_config_error(path: Path | None, overrides: list[str]) -> None:
    message = ""
    try:
        load_config(path, overrides)
    except ConfigError as error:
        message = str(error)
    assert message.isprintable()


KEYS = [f"{s}.{name}" for s, model in SECTIONS.items() for name in model.model_fields]
POOL_WORDS = ["pools", "pools.a", "a", *PoolConfig.model_fields]
WORDS = st.sampled_from(
    ["seed", *POOL_WORDS, *SECTIONS, *(k.partition(".")[2] for k in KEYS)]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["none", "inf", "auto", "chunked-prefill", 1, 2, 10**30]),
    lambda inner: st.lists(inner) | st.dictionaries(WORDS | st.text(), inner),
    max_leaves=8,
)


@given(st.binary(max_size=200), st.sampled_from([".toml", ".json"]))
@example(b"\xff\xfe", ".toml")
def test_any_bytes_load_or_are_one_line(folder: Path, data: bytes, suffix: str) -> None:
    """Nothing but ConfigError, whatever is in the file."""
    only_config_error(write(folder, f"bytes{suffix}", data), [])


@given(st.dictionaries(WORDS | st.text(), VALUES, max_size=5))
def test_any_json_loads_or_is_one_line(folder: Path, data: dict[str, object]) -> None:
    """Right words with wrong values, and the other way round."""
    only_config_error(write(folder, "data.json", json.dumps(data).encode()), [])


@given(st.data())
def test_a_damaged_file_loads_or_is_one_line(folder: Path, data: st.DataObject) -> None:
    """A few bytes of a whole configuration overwritten or cut."""
    text = config_toml(Config()).encode()
    at = data.draw(st.integers(0, len(text)))
    junk = data.draw(
        st.binary(max_size=8) | st.text("[]{}=.\"'\n#,-_", max_size=8).map(str.encode)
    )
    skipped = data.draw(st.integers(0, 8))
    damaged = text[:at] + junk + text[at + skipped :]
    only_config_error(write(folder, "damaged.toml", damaged), [])


@given(st.sampled_from(KEYS) | st.text(), st.sampled_from(["=", ""]), st.text())
@example("seed", "=", "1\nvalue = 2")
@example("seed", "=", "[" * 5000)
@example("model.name", "=", "9" * 5000)
def test_any_override_loads_or_is_one_line(key: str, equals: str, text: str) -> None:
    """As the shell hands it over."""
    only_config_error(None, [f"{key}{equals}{text}"])


POOL_VALUES = st.sampled_from(
    [*("h100_sxm", "a100_sxm", "both", "prefill", "decode", "none", "orca", "x")]
) | st.sampled_from([0, 1, 2, 4, 8, 512, 10**9, -1, 0.0, 0.5, 1.0, 1e-300, True])


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "B", "c1"]),
        st.dictionaries(st.sampled_from(list(PoolConfig.model_fields)), POOL_VALUES),
        max_size=3,
    ),
    st.integers(1, 4),
)
def test_any_pools_load_or_are_one_line(
    folder: Path, pools: dict[str, dict[str, object]], nodes: int
) -> None:
    """Pools that do not fit together, nodes that do not hold them."""
    data = {"pools": pools, "cluster": {"nodes": nodes, "gpus_per_node": 4}}
    only_config_error(write(folder, "data.json", json.dumps(data).encode()), [])
