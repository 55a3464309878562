"""What-if knobs: what they change, by hand, and that the output says so."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from sim.build import build_machine
from sim.cli import app
from sim.config import Config
from sim.config_file import load_config
from sim.energy import PowerModel
from sim.errors import ConfigError
from sim.plan import LayerSpan, StepPlan
from sim.runner import run_config
from sim.step import StepCost
from sim.throttle import ThrottledPricer
from sim.what_if import what_if_kernels, what_if_text

POWER = PowerModel(
    num_gpus=2,
    run_w=300.0,
    gap_w=200.0,
    idle_w=100.0,
    cap_w=400.0,
    hbm_pj_per_byte=100.0,
    pj_per_flop=1.0,
)
# 2 ms, half of it waiting; 1 J for bytes and 0.5 J for FLOPs.
STEP = StepCost(
    *(2_000_000, 1_000_000, 0, 0, 0, 0),
    *(4_000_000_000, 3_000_000_000, 2_000_000_000, 1_000_000_000, 0, 500_000_000_000),
    *(0.0, 0.0, 0.0, 0.0),
)


class OnePrice:
    """The same for any plan."""

    def __init__(self, cost: StepCost) -> None:
        self.cost = cost

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        return self.cost


def config(*settings: str) -> Config:
    return load_config(None, ["workload.num_requests=6", *settings])


def test_a_power_cap_by_hand() -> None:
    """1.5 J fixed, less 2 x 100 W x 1 ms; 2 x 100 W of room: 1.3 / 200 s = 6.5 ms."""
    plan = StepPlan((LayerSpan(0, 1),))
    cost = ThrottledPricer(OnePrice(STEP), POWER).price(plan, 1, 1)
    assert cost.duration_ns == 6_500_000
    assert cost.energy_j == pytest.approx(2 * 400.0 * 6.5e-3)
    assert (cost.energy_hbm_j, cost.energy_flop_j) == pytest.approx((1.0, 0.5))
    light = STEP._replace(kv_bytes=0, flops=0, other_weight_bytes=0)
    light = light._replace(expert_weight_bytes=0, activation_bytes=0)
    assert ThrottledPricer(OnePrice(light), POWER).price(plan, 1, 1)[:2] == STEP[:2]


def test_a_power_cap_slows_the_run_and_bounds_every_iteration() -> None:
    """At the profiled limit or above nothing changes."""
    capped = run_config(config("cluster.power_cap_w=400.0"))
    free = run_config(config())
    steps = capped.iterations
    mean_w = steps["energy_j"] / (steps["end_ns"] - steps["start_ns"]) * 1e9
    assert mean_w.max() <= 2 * 400.0 * 1.001
    assert capped.summary["mean_ttft_ms"] > free.summary["mean_ttft_ms"]
    high = run_config(config("cluster.power_cap_w=5000.0")).summary
    assert high["mean_ttft_ms"] == free.summary["mean_ttft_ms"]


def test_experts_change_weights_traffic_and_memory() -> None:
    """Half the experts: half their weights, so so much more KV cache."""
    whole, half = build_machine(config()), build_machine(config("model.num_experts=64"))
    assert half.model.num_experts == 64
    before, after = (m.model.weight_bytes("bfloat16").expert for m in (whole, half))
    assert before == 2 * after
    assert half.num_blocks > whole.num_blocks
    fewer = run_config(config("model.top_k=2")).summary
    usual = run_config(config()).summary
    assert fewer["expert_weight_bytes"] < usual["expert_weight_bytes"]


def test_memory_scale_changes_the_kv_cache_alone() -> None:
    """Usable HBM is 0.9 of 80 GB on each GPU: 10 % more are 7.2 GB for blocks."""
    usual, more = (
        build_machine(config()),
        build_machine(config("cluster.hbm_capacity_scale=1.1")),
    )
    per_block = usual.model.kv_bytes_per_token("bfloat16") / 2 * 16
    gained = (more.num_blocks - usual.num_blocks) * per_block
    assert gained == pytest.approx(0.9 * 0.1 * usual.gpu.hbm_bytes, rel=1e-3)
    assert more.gpu == usual.gpu


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("cluster.power_cap_w=200.0", "power of running kernels"),
        ("model.top_k=200", "<= 128 experts"),
        ("model.num_experts=4", "8 experts per token must be <= 4"),
        ("cluster.hbm_capacity_scale=0.1", "does not fit"),
    ],
)
def test_what_cannot_be_is_refused(setting: str, words: str) -> None:
    """In one line with key and value."""
    with pytest.raises(ConfigError, match=words):
        run_config(config(setting))
    with pytest.raises(ConfigError, match="has no experts"):
        build_machine(config("model.name=Qwen/Qwen3-8B", "model.top_k=2"))


@pytest.mark.parametrize(
    ("setting", "text", "kernels"),
    [
        ("seed=1", "", ""),
        (
            "cluster.link_bandwidth_scale=2.0",
            "cluster.link_bandwidth_scale = 2.0",
            "all_reduce, gather",
        ),
        ("model.top_k=4", "model.top_k = 4", "experts"),
        (
            "cluster.power_cap_w=500.0",
            "cluster.power_cap_w = 500.0 (unvalidated)",
            "linear, experts, attention, head, elementwise, all_reduce",
        ),
    ],
)
def test_results_say_what_was_not_profiled(
    setting: str, text: str, kernels: str
) -> None:
    """Knobs and the kernels they move."""
    assert what_if_text(config(setting)) == text
    assert what_if_kernels(config(setting)) == kernels
    summary = run_config(config(setting)).summary
    assert (summary["what_if"], summary["what_if_kernels"]) == (text, kernels)


def test_the_command_warns(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, once."""
    monkeypatch.chdir(str(tmp_path))
    words = ["run", "-q", "--set", "workload.num_requests=2"]
    shown = CliRunner().invoke(app, [*words, "--set", "cluster.flops_scale=2.0"])
    assert shown.stderr == (
        "warning: what-if, not a machine that was profiled: cluster.flops_scale = 2.0\n"
    )
