"""The kernels compute what they are timed for; on the CPU, where torch is installed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from calibration.profiler import attention_kernels, expert_kernels
from calibration.profiler.expert_kernels import routing
from calibration.profiler.kernel_parts import Bench
from calibration.profiler.kernels import build
from calibration.profiler.schema import kernel


@pytest.mark.parametrize(
    ("tokens", "topk", "experts", "touched"),
    [
        (1, 8, 128, 8),
        (16, 8, 128, 100),
        (512, 8, 128, 128),
        (3, 2, 8, 5),
        (7, 4, 32, 4),
    ],
)
def test_routing_touches_exactly_what_is_asked_for(
    tokens: int, topk: int, experts: int, touched: int
) -> None:
    """Evenly, with different experts for each token."""
    ids = routing(tokens, topk, experts, touched)
    assert len(ids) == tokens
    assert all(len(set(row)) == topk for row in ids)
    load = Counter(expert for row in ids for expert in row)
    assert len(load) == touched
    assert max(load.values()) - min(load.values()) <= 1
    assert all(0 <= expert < experts for expert in load)


def test_every_rank_has_its_share_of_the_touched_experts() -> None:
    """8 ranks of 16 experts; 40 touched: 5 each."""
    touched = {expert for row in routing(64, 8, 128, 40) for expert in row}
    assert Counter(expert // 16 for expert in touched) == dict.fromkeys(range(8), 5)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """torch on the CPU, and no engine's own kernels."""
    torch = pytest.importorskip("torch")
    for module in (attention_kernels, expert_kernels):
        monkeypatch.setattr(module, "optional", lambda name: None)
    return Bench(torch, "cpu", torch.Generator().manual_seed(1))


@pytest.fixture
def inputs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tensors that a builder draws, in its order."""
    drawn: list[Any] = []
    normal: Callable[..., Any] = Bench.normal

    def recording(self: Bench, *shape: int, scale: float = 1.0) -> Any:
        drawn.append(normal(self, *shape, scale=scale))
        return drawn[-1]

    monkeypatch.setattr(Bench, "normal", recording)
    return drawn


def numbers(tensor: Any) -> Any:
    return tensor.float().numpy().astype(np.float64)


def literal_attention(q: Any, k: Any, v: Any, window: int) -> Any:
    """Row by row: the last query sits at the last key; it sees `window` keys."""
    batch, new, heads, width = q.shape
    total, group = k.shape[1], heads // k.shape[2]
    out = np.zeros(q.shape)
    for b, i, h in np.ndindex(batch, new, heads):
        at = total - new + i
        first = max(at - window + 1, 0) if window else 0
        seen = slice(first, at + 1)
        score = k[b, seen, h // group] @ q[b, i, h] / np.sqrt(width)
        weight = np.exp(score - score.max())
        out[b, i, h] = weight @ v[b, seen, h // group] / weight.sum()
    return out


@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize("prefix", [0, 7])
def test_prefill_attention_sees_its_prefix(
    bench: Bench, inputs: list[Any], window: int, prefix: int
) -> None:
    """Against a row-by-row computation; bfloat16 holds three digits."""
    asked = kernel(
        "prefill_attention",
        kv_dtype="bfloat16",
        num_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        window_size=window,
        batch_size=2,
        isl=5,
        prefix=prefix,
    )
    out = build(asked, bench).run()
    expected = literal_attention(*map(numbers, inputs), window)
    np.testing.assert_allclose(numbers(out), expected, atol=0.03)


@pytest.mark.parametrize("window", [0, 4])
def test_decode_attention_sees_the_cache_and_itself(
    bench: Bench, inputs: list[Any], window: int
) -> None:
    """`step` cached keys and one new one, or the window's."""
    asked = kernel(
        "decode_attention",
        kv_dtype="bfloat16",
        num_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        window_size=window,
        batch_size=3,
        step=9,
    )
    out = build(asked, bench).run()
    q, k, v = map(numbers, inputs)
    assert k.shape == (3, window or 10, 2, 16)
    np.testing.assert_allclose(numbers(out), literal_attention(q, k, v, 0), atol=0.03)


def test_gemm_multiplies(bench: Bench, inputs: list[Any]) -> None:
    """[m, k] by [n, k] transposed."""
    out = build(kernel("gemm", dtype="bfloat16", n=6, k=8, m=3), bench).run()
    x, weight = map(numbers, inputs)
    np.testing.assert_allclose(numbers(out), x @ weight.T, atol=0.05)


@pytest.mark.parametrize("ep", [1, 2])
def test_experts_compute_gated_layers_of_their_rank(
    bench: Bench, inputs: list[Any], ep: int
) -> None:
    """Token by token: mean over its local experts of down(silu(gate) * up)."""
    asked = kernel(
        "moe",
        dtype="bfloat16",
        hidden_size=16,
        inter_size=8,
        topk=2,
        num_experts=8,
        moe_tp_size=1,
        moe_ep_size=ep,
        distribution="touched",
        num_tokens=9,
        touched_experts=5,
    )
    out = build(asked, bench).run()
    x, gate_up, down = map(numbers, inputs)
    assert gate_up.shape[0] == 8 // ep
    expected = np.zeros_like(x)
    for token, chosen in enumerate(routing(9, 2, 8, 5)):
        for expert in (e for e in chosen if e < 8 // ep):
            gate, up = np.split(gate_up[expert] @ x[token], 2)
            expected[token] += down[expert] @ (gate / (1 + np.exp(-gate)) * up) / 2
    np.testing.assert_allclose(numbers(out), expected, atol=0.05)
