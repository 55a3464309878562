"""Routed experts of one rank, with exactly as many experts touched as asked for.

vLLM's fused kernel where it is installed; else one product per touched expert in plain
torch, a lower bound of what a grouped kernel can do only for few experts. Routing
(softmax, top-k) and communication are not included; sorting tokens by expert is in
vLLM's kernel only.
"""

from __future__ import annotations

from typing import Any, Final

from calibration.profiler.kernel_parts import Bench, Built, Keys, optional

_VLLM: Final = "vllm.model_executor.layers.fused_moe.fused_moe"


def routing(tokens: int, topk: int, experts: int, touched: int) -> list[list[int]]:
    """Experts of each token: pairs spread evenly over `touched` of all experts.

    Pair p goes to the (p mod touched)-th touched expert, and these lie evenly among all
    of them, so every expert-parallel rank has its share. Deterministic.

    Args:
        tokens: tokens of all ranks.
        topk: different experts per token, at most `touched`.
        experts: experts of all ranks.
        touched: experts with at least one token, at most tokens * topk.

    Returns:
        [tokens][topk] expert numbers.
    """
    chosen = [number * experts // touched for number in range(touched)]
    return [
        [chosen[(token * topk + rank) % touched] for rank in range(topk)]
        for token in range(tokens)
    ]


def experts(keys: Keys, bench: Bench) -> Built:
    """The routed experts of rank 0, whose result is [num_tokens, hidden_size]."""
    numbers = {key: value for key, value in keys.items() if isinstance(value, int)}
    hidden, total = numbers["hidden_size"], numbers["num_experts"]
    inner = numbers["inter_size"] // numbers["moe_tp_size"]
    local = total // numbers["moe_ep_size"]
    tokens, topk = numbers["num_tokens"], numbers["topk"]
    ids = routing(tokens, topk, total, numbers["touched_experts"])
    x = bench.normal(tokens, hidden)
    # scaled so that sums over `hidden` and `inner` terms stay near one
    gate_up = bench.normal(local, 2 * inner, hidden, scale=hidden**-0.5)
    down = bench.normal(local, hidden, inner, scale=inner**-0.5)
    fused = optional(_VLLM)
    if fused is None:
        return _loop(bench, x, gate_up, down, ids)
    return _fused(bench, fused, x, gate_up, down, ids, total)


def _fused(
    bench: Bench,
    fused: Any,
    x: Any,
    gate_up: Any,
    down: Any,
    ids: list[list[int]],
    total: int,
) -> Built:
    torch, local = bench.torch, gate_up.shape[0]
    chosen = torch.tensor(ids, dtype=torch.int32, device=bench.device)
    weights = torch.full(chosen.shape, 1 / chosen.shape[1], device=bench.device)
    options: dict[str, Any] = {}
    if local < total:
        owned = torch.full((total,), -1, dtype=torch.int32, device=bench.device)
        owned[:local] = torch.arange(local, dtype=torch.int32, device=bench.device)
        options = {"global_num_experts": total, "expert_map": owned}

    def run() -> Any:
        return fused.fused_experts(x, gate_up, down, weights, chosen, **options)

    return Built(run, "vllm.fused_experts")


def _loop(bench: Bench, x: Any, gate_up: Any, down: Any, ids: list[list[int]]) -> Built:
    torch, functional = bench.torch, bench.torch.nn.functional
    rows: dict[int, list[int]] = {}
    for token, experts_of_token in enumerate(ids):
        for expert in experts_of_token:
            if expert < gate_up.shape[0]:
                rows.setdefault(expert, []).append(token)
    work = [
        (expert, torch.tensor(mine, device=bench.device))
        for expert, mine in sorted(rows.items())
    ]
    share = 1 / len(ids[0])

    def run() -> Any:
        out = torch.zeros_like(x)
        for expert, mine in work:
            both = functional.linear(x[mine], gate_up[expert])
            gate, up = both.chunk(2, dim=1)
            product = functional.linear(functional.silu(gate) * up, down[expert])
            out.index_add_(0, mine, product, alpha=share)
        return out

    return Built(run, "torch.nn.functional.linear(loop over experts)")
