"""The tables of the configuration: every key with type, bounds, default and meaning.

Words and defaults are vLLM's wherever vLLM has the option.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from sim.config_fields import (
    Affinity,
    BlockTokens,
    CacheTokens,
    Count,
    Extra,
    Fraction,
    Gain,
    Gibibytes,
    MicroBatches,
    Milliseconds,
    Name,
    OrNone,
    Scale,
    Seconds,
    Share,
    Sigma,
    Tokens,
    Watts,
)

CHUNKED_PREFILL: Final = "chunked-prefill"
DYNAMIC_CHUNKED: Final = "dynamic-chunked-prefill"
# The usual chunk of chunked prefill, and the budget of layered prefill in its published
# code and paper (arXiv, Qwen3-30B-A3B on 2 x H100: C = 512 against B = 8192).
CHUNK_TOKENS: Final = 512
BATCH_TOKENS: Final = 8192
# Default of vLLM's --swap-space.
SWAP_SPACE_GIB: Final = 4.0


class Section(BaseModel):
    """A frozen table of keys: no unknown ones, no coercion, no NaN, no infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class ModelConfig(Section):
    """Which model is served."""

    name: Name = Field(
        default="Qwen/Qwen3-30B-A3B",
        description="Catalogue name, or path of a Hugging Face config.json: a name "
        "that ends in .json is a path, relative to the configuration file.",
        examples=["Qwen/Qwen3-8B", "models/config.json"],
    )
    dtype: Literal["auto", "bfloat16", "fp8", "mxfp4"] = Field(
        default="auto",
        description="Type of the weights; auto is the model's native one.",
    )
    num_experts: Annotated[Count | None, OrNone] = Field(
        default=None,
        description="What-if: experts in each layer of a MoE; none is the model's own.",
    )
    top_k: Annotated[Count | None, OrNone] = Field(
        default=None,
        description="What-if: experts per token of a MoE; none is the model's own.",
    )


class ClusterConfig(Section):
    """The machines."""

    gpu: Name = Field(
        default="h100_sxm",
        description="Catalogue name of the GPU.",
        examples=["h100_sxm", "a100_sxm"],
    )
    nodes: Count = Field(default=1, description="Number of nodes.")
    gpus_per_node: Count = Field(default=2, description="GPUs in each node.")
    hbm_bandwidth_scale: Scale = Field(
        default=1.0, description="Factor on the GPU's HBM bandwidth."
    )
    flops_scale: Scale = Field(
        default=1.0, description="Factor on the GPU's peak FLOP/s."
    )
    link_bandwidth_scale: Scale = Field(
        default=1.0, description="Factor on the bandwidth of the links between GPUs."
    )
    hbm_capacity_scale: Scale = Field(
        default=1.0, description="Factor on the GPU's HBM capacity."
    )
    power_cap_w: Annotated[Watts | None, OrNone] = Field(
        default=None,
        description="What-if, unvalidated: board power limit that slows iterations "
        "down, W; none is the limit under which kernels were profiled.",
    )
    outages: Annotated[Name | None, OrNone] = Field(
        default=None,
        description="Failures and drains of replicas, a CSV file relative to the "
        "configuration file with the columns replica, kind (failure or drain), start_s "
        "and end_s.",
        examples=["outages.csv"],
    )
    mtbf_s: Annotated[Seconds | None, OrNone] = Field(
        default=None,
        description="Mean time between a repair of a replica and its next failure, "
        "exponential, in place of a file; none: replicas never fail.",
    )
    repair_s: Annotated[Seconds | None, OrNone] = Field(
        default=None,
        description="Mean time to repair a replica that failed, exponential.",
    )


class EngineConfig(Section):
    """The serving engine and its scheduling policy."""

    scheduler: Name = Field(
        default="layered-prefill",
        description="Scheduling policy.",
        examples=["layered-prefill", "chunked-prefill", "orca", "static"],
    )
    queue: Name = Field(
        default="fcfs",
        description="Who is admitted first: fcfs in order of arrival, sjf the shortest "
        "prompt, vtc the client that was served least.",
        examples=["fcfs", "sjf", "vtc"],
    )
    tbt_target_ms: Annotated[Milliseconds | None, OrNone] = Field(
        default=None,
        description="adaptive-layered-prefill and dynamic-chunked-prefill: longest "
        "iteration they plan while requests decode, ms; none is slo.itl_ms.",
    )
    max_num_batched_tokens: Annotated[Tokens | None, OrNone] = Field(
        default=None,
        description="Token budget of an iteration, in tokens; none is the scheduler's "
        f"usual: {CHUNK_TOKENS} for {CHUNKED_PREFILL}, {BATCH_TOKENS} for others. "
        "Under pipeline parallelism that of each micro-batch, as in vLLM.",
    )
    num_micro_batches: Annotated[MicroBatches | None, OrNone] = Field(
        default=None,
        description="The most micro-batches in flight in a pipeline; none is one per "
        "stage, as in vLLM.",
    )
    num_layer_groups: Count = Field(
        default=16,
        description="layered-prefill, hybrid-prefill: the most groups a batch is "
        "spread over.",
    )
    layer_group_rule: Literal["code", "paper"] = Field(
        default="code",
        description="layered-prefill, hybrid-prefill: groups from the batch's prompt "
        "tokens, by the published code's table or the paper's ceil(tokens / 512).",
    )
    prefill_sm_share: Share = Field(
        default=0.5,
        description="What-if, unvalidated, multiplexed-prefill: share of the SMs that "
        "prefill while requests decode on the others.",
    )
    max_num_seqs: Count = Field(
        default=256, description="The most requests in one iteration."
    )
    max_model_len: Tokens = Field(
        default=16384, description="Context limit, prompt and output, in tokens."
    )
    block_size: BlockTokens = Field(default=16, description="Tokens in a KV block.")
    gpu_memory_utilization: Fraction = Field(
        default=0.9,
        description="Share of HBM for weights, activations and KV cache.",
    )
    kv_cache_tokens: Annotated[CacheTokens | None, OrNone] = Field(
        default=None,
        description="KV capacity of a replica in tokens, as an engine's log prints "
        "it; none derives it from gpu_memory_utilization.",
    )
    preemption_mode: Literal["recompute", "swap"] = Field(
        default="recompute",
        description="What becomes of a preempted request's KV blocks: computed again, "
        "or copied to host memory and back.",
    )
    swap_space: Annotated[Gibibytes | None, OrNone] = Field(
        default=None,
        description="Host memory for KV blocks under preemption_mode swap, GiB per "
        f"GPU; none is vLLM's {SWAP_SPACE_GIB:g}.",
    )
    kv_cache_dtype: Literal["auto", "fp8"] = Field(
        default="auto", description="Type of the KV cache; auto is the model's."
    )
    enable_prefix_caching: bool = Field(
        default=False,
        description="Keep KV blocks of finished requests while there is room, for "
        "prompts that begin alike: sessions and traces with hash_ids.",
    )
    fidelity: Literal["iteration", "kernel"] = Field(
        default="iteration",
        description="Iterations in closed form, or every kernel and collective on its "
        "stream, sharing HBM and links.",
    )
    overlap: Literal["none", "tp-all-reduce", "two-batch"] = Field(
        default="none",
        description="With fidelity kernel: nothing runs beside a collective; the "
        "second half of the kernel before it; or the other half of the batch.",
    )

    @property
    def token_budget(self) -> int:
        """Tokens of an iteration: max_num_batched_tokens or the scheduler's usual."""
        if self.max_num_batched_tokens is not None:
            return self.max_num_batched_tokens
        return CHUNK_TOKENS if self.scheduler == CHUNKED_PREFILL else BATCH_TOKENS


class MoeConfig(Section):
    """How tokens choose experts."""

    routing: Literal["skewed", "uniform"] = Field(
        default="skewed",
        description="Expert popularity: measured skew, or every expert alike.",
    )
    prompt_skew: Annotated[Sigma | None, OrNone] = Field(
        default=None,
        description="Lognormal sigma of expert popularity among the tokens of one "
        "prompt; none is the model's.",
    )
    decode_skew: Annotated[Sigma | None, OrNone] = Field(
        default=None,
        description="Lognormal sigma of expert popularity among tokens of different "
        "requests; none is the model's.",
    )

    placement: Annotated[Name | None, OrNone] = Field(
        default=None,
        description="Strategy that places experts on the GPUs of an expert-parallel "
        "replica; none is contiguous under the imbalance of the kernel tables.",
        examples=["linear", "eplb", "exflow", "joint"],
    )
    statistics: Annotated[Name | None, OrNone] = Field(
        default=None,
        description='Routing statistics: a file as of servescope place, or "preset" '
        "for the model's; none is the preset where a placement needs one.",
        examples=["STATS.json", "preset"],
    )
    fit_statistics: Annotated[Name | None, OrNone] = Field(
        default=None,
        description="Routing statistics that the placement is fitted to, a file, where "
        "they are not those of the run: another domain's; none is moe.statistics.",
        examples=["OTHER.json"],
    )
    affinity: Annotated[Affinity | None, OrNone] = Field(
        default=None,
        description="Strength lambda of planted inter-layer affinity, in place of "
        "statistics; popularity is then lognormal of decode_skew.",
    )
    communication: Literal["tp_allreduce", "ep_home", "context_coherent"] = Field(
        default="tp_allreduce",
        description="How tokens meet their experts: all ranks have all tokens; "
        "dispatch to experts and combine at home; or stay where the expert was, with "
        "every context on every GPU (ExFlow).",
    )
    all_to_all: Literal["nccl", "deepep"] = Field(
        default="nccl",
        description="Kernels of dispatch and combine (communication ep_home): NCCL's "
        "all-to-all, or DeepEP's, low latency where all rows decode, else normal.",
    )
    dispatch_dtype: Literal["bfloat16", "fp8"] = Field(
        default="bfloat16", description="Type of dispatched states (DeepEP: fp8)."
    )
    redundant_experts: Extra = Field(
        default=0, description="Further slots per layer for copies (placement eplb)."
    )
    topics: Count = Field(
        default=1,
        description="Topics of the workload, each with its own popular experts "
        "(statistics of a preset).",
    )
    topic_period_s: Annotated[Seconds | None, OrNone] = Field(
        default=None,
        description="Seconds after which the next topic begins; none stays with the "
        "first, to which the placement is fitted.",
    )
    rebalance_interval: Annotated[Count | None, OrNone] = Field(
        default=None,
        description="Iterations after which experts may be placed anew; none never.",
    )
    rebalance_window: Count = Field(
        default=1000, description="Iterations whose tokens decide (vLLM: window_size)."
    )
    rebalance_min_gain: Gain = Field(
        default=0.02, description="Least relative fall of max/mean load worth a move."
    )
    rebalance_mode: Literal["blocking", "async"] = Field(
        default="async",
        description="Serving stops while experts move, or transfers overlap with it.",
    )
    rebalance_layers_per_step: Count = Field(
        default=1, description="Layers that move in an iteration, mode async."
    )


class CalibrationConfig(Section):
    """Where times come from."""

    profile: Name = Field(
        default="vllm-0.24",
        description="Kernel tables and engine overheads: a shipped profile, or the "
        "path of a .toml file that servescope calibrate anchor wrote.",
        examples=["vllm-0.24", "layered-prefill-v1", "layered-prefill-v2"],
    )
    data_dir: Annotated[Name | None, OrNone] = Field(
        default=None,
        description="Folder of kernel tables written by servescope calibrate import, "
        "relative to the configuration file; none is the shipped set.",
    )
