"""DeepEP: measured points come back, other models by bytes, other machines refused."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from calibration.kernels.deepep import (
    DeepEp,
    ExpertSizes,
    Mode,
    deepep_tables,
    reached,
)
from calibration.kernels.exchange import DeepEpExchange
from calibration.kernels.rank_loads import MoeShape, copies
from calibration.tables import KernelTables, load_tables
from sim.build import build_machine
from sim.build_placement import rank_loads
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.placement.placement import from_gpu_of
from sim.placement.topology import EpTopology
from sim.routing_stats import RoutingStats

QWEN = ExpertSizes(2048, 8, 128)
DEEPSEEK = ExpertSizes(7168, 8, 256)


@pytest.fixture(scope="module")
def h100() -> KernelTables:
    return load_tables("h100_sxm", framework="deepep")


def _measured(tables: KernelTables, table: str, sizes: ExpertSizes, **keys: int | str):
    rows = tables.select(
        table,
        hidden_size=sizes.hidden_size,
        topk=sizes.top_k,
        num_experts=sizes.num_experts,
        **keys,
    )
    return dict(
        zip(rows["num_tokens"].tolist(), rows["latency_ns"].tolist(), strict=True)
    )


def _uniform(sizes: ExpertSizes, nodes: int) -> tuple[DeepEpExchange, MoeShape]:
    """Every expert alike, contiguous on 8 ranks a node, dispatched in fp8."""
    ranks = 8 * nodes
    stats = RoutingStats(np.full((1, sizes.num_experts), 1 / sizes.num_experts), 8)
    row = np.arange(sizes.num_experts) // (sizes.num_experts // ranks)
    loads = rank_loads(from_gpu_of(row[None], ranks), stats, EpTopology(ranks, 8))
    shape = MoeShape(
        hidden_size=sizes.hidden_size,
        top_k=sizes.top_k,
        expert_bytes=1.0,
        dispatch_dtype="fp8",
    )
    deepep = DeepEp(load_tables("h100_sxm", framework="deepep"), sizes, ranks, 8)
    out, _ = copies(loads, ranks, "ep_home")
    return DeepEpExchange(deepep, out, loads, shape), shape


def test_groups_reached_are_counted_out() -> None:
    """All choices of 3 of 8 experts in 4 groups of 2, one by one."""
    chosen = list(combinations(range(8), 3))
    mean = sum(len({expert // 2 for expert in each}) for each in chosen) / len(chosen)
    assert reached(ExpertSizes(1, 3, 8), 4) == pytest.approx(mean)
    assert reached(ExpertSizes(1, 7, 8), 4) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("sizes", "nodes", "prompts", "tokens"),
    [
        (QWEN, 1, True, 1024),
        (DEEPSEEK, 1, True, 16),
        (QWEN, 1, False, 64),
        (DEEPSEEK, 4, False, 128),
        (DEEPSEEK, 2, True, 4096),
    ],
)
def test_uniform_routing_takes_the_measured_time(
    h100: KernelTables, sizes: ExpertSizes, nodes: int, prompts: bool, tokens: int
) -> None:
    """Reach under routing statistics is a product law, hence not quite exact."""
    exchange, _ = _uniform(sizes, nodes)
    cost = exchange.cost(tokens * 8 * nodes, prompts=prompts)
    table = "deepep_normal" if prompts else "deepep_low_latency"
    table += "_nodes" if nodes > 1 else ""
    both = sum(
        _measured(h100, table, sizes, num_nodes=nodes, phase=phase)[tokens]
        for phase in ("dispatch", "combine")
    )
    assert cost.ns[0] == pytest.approx(both, rel=0.02)
    assert cost.extrapolated_ns[0] == 0


def test_bfloat16_moves_twice_the_bytes_on_the_way_out(h100: KernelTables) -> None:
    """Between two profiled sizes whose times are proportional, so the double time."""
    times = _measured(h100, "deepep_normal", QWEN, phase="dispatch")
    deepep = DeepEp(h100, QWEN, 8, 8)
    token = reached(QWEN, 8) * 7 / 8 * 2048
    once = deepep.at("normal", "dispatch", 32768 * token * 33 / 32, 0.0)
    twice = deepep.at("normal", "dispatch", 65536 * token * 33 / 32, 0.0)
    assert (once.ns, twice.ns) == (times[32768], times[65536])


@pytest.mark.parametrize("mode", ["normal", "low_latency"])
@pytest.mark.parametrize("phase", ["dispatch", "combine"])
def test_other_models_take_the_time_of_their_bytes(
    h100: KernelTables, mode: Mode, phase: str
) -> None:
    """Each profiled model without its own rows, over 64 tokens, against them."""
    errors = []
    for hidden in (2048, 4096, 7168):
        sizes = ExpertSizes(hidden, 8, 128 if hidden < 7168 else 256)
        times = _measured(h100, f"deepep_{mode}", sizes, phase=phase)
        strange = DeepEp(_Without(h100, hidden), sizes, 8, 8)
        width = hidden * (33 / 32 if phase == "dispatch" else 2)
        copies = reached(sizes, 8) * 7 / 8 if mode == "normal" else 8
        for tokens, measured in times.items():
            if tokens >= 64:
                timed = strange.at(mode, phase, tokens * copies * width, 0.0)
                assert timed.extrapolated_ns == timed.ns
                errors.append(abs(timed.ns / measured - 1))
    assert np.mean(errors) < 0.1


class _Without:
    """Tables without the rows of one hidden size."""

    gpu = "h100_sxm"

    def __init__(self, tables: KernelTables, hidden: int) -> None:
        self._tables, self._hidden, self.names = tables, hidden, tables.names

    def select(self, table: str, **keys: str) -> dict[str, np.ndarray]:
        rows = self._tables.select(table, **keys)
        kept = rows["hidden_size"] != self._hidden
        if not kept.any():  # several nodes were timed with one model only
            return rows
        return {name: column[kept] for name, column in rows.items()}


def test_groups_that_were_not_profiled_count_as_extrapolated(
    h100: KernelTables,
) -> None:
    half = DeepEp(h100, QWEN, 4, 8).at("normal", "dispatch", 1e6, 0.0)
    assert half.extrapolated_ns == half.ns > 0
    b200 = load_tables("b200_sxm", framework="deepep")
    across = DeepEp(b200, QWEN, 16, 8).at("low_latency", "combine", 1e6, 1e9)
    assert across.extrapolated_ns == across.ns > 1e9 / 100  # a NIC of 100 GB/s at most


def test_a_gpu_without_deepep_is_refused() -> None:
    with pytest.raises(ConfigError, match="not profiled on l40s; allowed: nccl"):
        deepep_tables(load_tables("l40s"))


def test_the_hash_of_a_machine_names_its_tables() -> None:
    """The hash of what prices a plan names the tables."""
    keys = [
        *("cluster.gpus_per_node=8", "parallel.tensor_parallel_size=1"),
        *("parallel.data_parallel_size=8", "parallel.expert_parallel_size=8"),
        *("moe.communication=ep_home", "moe.dispatch_dtype=fp8"),
    ]
    nccl, deepep = (
        build_machine(load_config(None, [*keys, f"moe.all_to_all={name}"]))
        for name in ("nccl", "deepep")
    )
    assert nccl.calibration_sha256 != deepep.calibration_sha256


def test_deepep_needs_dispatch_and_combine() -> None:
    with pytest.raises(ConfigError, match="needs moe"):
        load_config(None, ["moe.all_to_all=deepep"])
