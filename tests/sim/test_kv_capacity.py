"""A machine that is built can hold one request of the longest allowed length."""

from __future__ import annotations

import pytest

from sim.build import build_machine
from sim.config_file import load_config
from sim.errors import ConfigError


@pytest.mark.parametrize("block_size", [1, 16, 64])
@pytest.mark.parametrize("tokens", [100, 112, 127, 128])
def test_pool_holds_a_whole_request_in_blocks(block_size: int, tokens: int) -> None:
    """Museum 4: a pool one block too small would stop in the middle of the run.

    Either the configuration is refused, or the blocks hold max_model_len tokens.
    """
    overrides = [
        f"engine.kv_cache_tokens={tokens}",
        "engine.max_model_len=100",
        f"engine.block_size={block_size}",
    ]
    try:
        machine = build_machine(load_config(None, overrides))
    except ConfigError as error:
        assert "max_model_len = 100" in str(error)  # noqa: PT017
    else:
        assert machine.num_blocks * block_size >= 100
