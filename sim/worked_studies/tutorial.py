"""The tool in short cells: run it whole, or cell by cell where ``# %%`` is understood.

``python -m sim.worked_studies.tutorial`` takes less than a minute.
"""

# ruff: noqa: T201, E402  (a page to read: it prints, and imports where it needs)

# %% One run: Qwen3-30B-A3B on 2 x H100, 60 summaries of articles.
from sim.api import capacity, compare, frontier, run, sweep

SMALL = {"workload.num_requests": 60, "calibration.profile": "layered-prefill-v1"}

result = run(SMALL)
summary = result.summary
ttft_ms, tbt_ms = summary["mean_ttft_ms"], summary["p99_itl_ms"]
print(f"mean TTFT {ttft_ms:.0f} ms, p99 TBT {tbt_ms:.1f} ms")
latencies = result.requests[["prompt_tokens", "output_tokens", "ttft_ms"]]
print(latencies.describe().round(0))

# %% Both policies on the same requests, at two rates.
table = compare([1.0, 1.4], SMALL)
columns = ["workload.request_rate", "engine.scheduler"]
columns += ["mean_ttft_ms", "p99_itl_ms", "energy_per_token_j"]
print(table[columns].round(3).to_string(index=False))

# %% Why: which layers run prompts in one iteration. Chunked prefill takes a piece of a
# prompt through all layers; layered prefill a whole prompt through one group of them.
for policy in ("chunked-prefill", "layered-prefill"):
    spans = run(SMALL | {"engine.scheduler": policy}).steps
    prompts = spans[(spans["prefill_tokens"] > 0) & (spans["decode_tokens"] > 0)]
    first = prompts.iloc[0]
    layers = first["last_layer"] - first["first_layer"]
    print(f"{policy}: {first['prefill_tokens']} prompt tokens in {layers} layers")

# %% The knob of each policy, and what no other setting beats in TTFT and TBT.
points = sweep(
    [
        {
            "engine.scheduler": ["chunked-prefill"],
            "engine.max_num_batched_tokens": [512, 2048],
        },
        {"engine.scheduler": ["layered-prefill"], "engine.num_layer_groups": [4, 16]},
    ],
    SMALL,
)
front = frontier(points, "ttft", "tbt")
print(front.frame[front.on_joint][["label", "mean_ttft_ms", "p99_itl_ms"]].round(1))

# %% The highest rate at which 90 % of requests meet the SLO, with its interval.
from sim.studies.capacity import Search

found = capacity(SMALL, search=Search(tolerance=0.1, max_seeds=2))
print(f"capacity {found.rate.estimate:.2f} req/s")

# %% What if HBM were twice as fast?
faster = run(SMALL | {"cluster.hbm_bandwidth_scale": 2.0}).summary
change = faster["p99_itl_ms"] / tbt_ms - 1
print(f"p99 TBT {100 * change:+.0f} % with twice the HBM bandwidth")
