"""Composition root: from a configuration to a cluster that is ready to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from calibration.anchor_file import ANCHOR_SUFFIX, read_anchor
from calibration.engine_profiles import EngineProfile, engine_profile, profile_names
from calibration.hardware import Gpu, gpu, gpu_aliases, gpu_names
from calibration.interconnect import host_copies
from calibration.kernels.expert_parallel import ExpertParallelLayers
from calibration.kernels.model_kernels import Deployment, ModelKernels
from calibration.kernels.roofline_file import roofline_file
from calibration.kernels.what_if import MachineScale
from calibration.links import kv_links
from calibration.memory import kv_cache_tokens
from calibration.model_shape import ModelShape
from calibration.model_work import model_work
from calibration.models import model
from calibration.pack_format import sha256
from calibration.tables import DATA_DIR, KernelTables, load_tables
from sim.attention_ranks import AttentionRanks
from sim.build_pipeline import pipeline_of
from sim.build_rebalance import fresh_pricer, placed_experts
from sim.config import Config, check_names
from sim.config_swap import SWAP
from sim.energy import PowerModel
from sim.errors import ConfigError
from sim.expert_loads import ExpertLoads
from sim.handover import KvLinks
from sim.input_file import read_bytes
from sim.model_work import ModelWork
from sim.pipeline_cost import PipelineCostModel
from sim.placed_parts import PlacedStepParts
from sim.placed_rows import PlacedRowCosts
from sim.placement import PLACEMENTS
from sim.pools import in_pool, own_table, pools_of
from sim.queues import QUEUES
from sim.rebalance import RebalancingPricer
from sim.routers import ROUTERS
from sim.schedulers import SCHEDULERS
from sim.step_cost import HostTimes, StepCostModel
from sim.step_parts import StepParts
from sim.what_if import what_if_memory, what_if_shape
from workloads.coverage import UNIFORM, ExpertCoverage, RoutingSkew, routing_skew
from workloads.datasets import DATASETS
from workloads.workload import Workload, WorkloadSpec, build_workload


@dataclass(frozen=True, slots=True)
class Machine:
    """A model on GPUs under one engine: everything but scheduler and workload.

    Attributes:
        model: Sizes of the model.
        deployment: The model with its formats and its split.
        gpu: The GPU as profiled.
        profile: The engine.
        dtype: Weight format.
        kv_dtype: KV cache format.
        kernels: Kernel times of the model on one GPU.
        pricer: Prices plans.
        parts: Splits the time of a plan into its kernels; None for a pipeline, and
            where experts move.
        work: Bytes and FLOPs of the model.
        coverage: Experts touched by a batch; None for dense models.
        power: Board power of a replica.
        num_blocks: KV blocks of a replica.
        links: What carries KV caches between replicas.
        tables: Whose kernels the tables time, such as "vllm 0.24.0".
        calibration_sha256: Hash of what prices a plan: kernel tables, MoE rooflines,
            engine profile, GPU and routing skew.
        fresh_pricer: Gives a replica a pricer of its own, where experts move or topics
            change; None where ``pricer`` serves all.
        expert_loads: Loads of experts and GPUs under a placement; None without one, and
            where they change in a run.
    """

    model: ModelShape
    deployment: Deployment
    gpu: Gpu
    profile: EngineProfile
    dtype: str
    kv_dtype: str
    kernels: ModelKernels
    pricer: StepCostModel | PipelineCostModel
    parts: StepParts | None
    work: ModelWork
    coverage: ExpertCoverage | None
    power: PowerModel
    num_blocks: int
    links: KvLinks
    tables: str
    calibration_sha256: str
    fresh_pricer: Callable[[], RebalancingPricer] | None = None
    expert_loads: ExpertLoads | None = None


class _Ingredients(TypedDict):
    """What the price of a plan and its split into kernels are both made of."""

    kernels: ModelKernels
    coverage: ExpertCoverage | None
    work: ModelWork
    host: HostTimes
    padded: Callable[[int], tuple[int, bool]]
    kernel_factor: float
    ranks: AttentionRanks


def profile_of(config: Config) -> EngineProfile:
    """The shipped profile of a configuration, or the anchored one its path names.

    Raises:
        ConfigError: If there is no such profile, or the file is bad.
    """
    name = config.calibration.profile
    if not name.endswith(ANCHOR_SUFFIX):
        return engine_profile(name)
    path = Path(name)
    anchor = read_anchor(path)
    return anchor.apply(engine_profile(anchor.base), path.stem)


def check_registered(config: Config) -> None:
    """Check every name of a configuration against its registry.

    Raises:
        ConfigKeyError: On an unknown name, with the nearest known one.
    """
    for pool in pools_of(config):
        with in_pool(pool.name, own_table(config.pools, pool.name)):
            check_registered(pool.config)
    check_names(
        config,
        schedulers=SCHEDULERS,
        datasets=DATASETS,
        profiles=(*profile_names(), *_anchored(config)),
        gpus=(*gpu_names(), *gpu_aliases()),
        routers=ROUTERS,
        placements=PLACEMENTS,
        queues=QUEUES,
    )


def _anchored(config: Config) -> tuple[str, ...]:
    """The profile's name where it is the path of an anchor file."""
    name = config.calibration.profile
    return (name,) if name.endswith(ANCHOR_SUFFIX) else ()


def build_workload_of(config: Config) -> Workload:
    """Materialise the requests of a configuration.

    Raises:
        ConfigError: If a trace is missing or malformed.
    """
    section = config.workload
    return build_workload(
        WorkloadSpec(
            dataset=section.dataset,
            path=section.path,
            request_rate=section.request_rate,
            burstiness=section.burstiness,
            max_concurrency=section.max_concurrency,
            num_requests=section.num_requests,
            duration_s=section.horizon_s,
            random_input_len=section.random_input_len,
            random_output_len=section.random_output_len,
            random_range_ratio=section.random_range_ratio,
            context_tokens=config.engine.max_model_len,
            session_turns_mean=section.session_turns_mean,
            session_turn_delay_mean_s=section.session_turn_delay_mean_s,
            num_clients=section.num_clients,
            client_skew=section.client_skew,
            seed=config.seed,
        )
    )


def build_machine(config: Config, profile: EngineProfile | None = None) -> Machine:
    """Load kernels, catalogue entries and profile, and size the KV cache.

    ``profile`` takes the place of the configured one (fits try many).

    Raises:
        ConfigError: If the model does not fit, or a kernel it needs was not profiled.
    """
    shape = what_if_shape(config, model(config.model.name))
    device = gpu(config.cluster.gpu)
    dtype = shape.native_dtype if config.model.dtype == "auto" else config.model.dtype
    kv_dtype = "fp8" if config.engine.kv_cache_dtype == "fp8" else "bfloat16"
    profile = (profile or profile_of(config)).sampling(device.name, shape)
    tables = _tables(config, device, profile)
    deployment = _deployment(config, shape, dtype, kv_dtype)
    kernels = _kernels(config, tables, device, deployment, profile)
    power = _power(device, dtype, deployment.replica_gpus)
    skew = _skew(config, shape)
    placed = placed_experts(config, kernels, tables, device, deployment, skew)
    ingredients: _Ingredients = {
        "kernels": kernels,
        "coverage": (
            ExpertCoverage(shape.num_experts, shape.top_k, skew)
            if shape.is_moe
            else None
        ),
        "work": model_work(
            deployment, kernels.elementwise_row_bytes, kernels.absorbed_chunk_tokens
        ),
        "host": profile.host,
        "padded": profile.padded,
        "kernel_factor": profile.kernel_factor,
        "ranks": AttentionRanks(deployment.dp),
    }

    def pricer_of(layers: ExpertParallelLayers | None) -> StepCostModel:
        return StepCostModel(experts=layers, power=power, **ingredients)

    def pipelined() -> PipelineCostModel:
        pipeline = pipeline_of(config, device, deployment, kernels.gather_hidden)
        return PipelineCostModel(pipeline=pipeline, power=power, **ingredients)

    plain = pricer_of(None if placed is None else placed.layers)
    fresh = fresh_pricer(config, placed, pricer_of, power)
    whole = deployment.pp == 1
    return Machine(
        model=shape,
        deployment=deployment,
        gpu=device,
        profile=profile,
        dtype=dtype,
        kv_dtype=kv_dtype,
        kernels=kernels,
        pricer=plain if whole else pipelined(),
        parts=_parts(plain, ingredients) if whole and fresh is None else None,
        work=ingredients["work"],
        coverage=ingredients["coverage"],
        power=power,
        fresh_pricer=fresh,
        expert_loads=placed.loads if placed is not None and fresh is None else None,
        num_blocks=_num_blocks(config, what_if_memory(config, device), deployment),
        links=kv_links(
            device,
            shape,
            kv_dtype,
            tp=deployment.tp,
            gpus_per_node=config.cluster.gpus_per_node,
            scale=config.cluster.link_bandwidth_scale,
        ),
        tables=tables.version,
        calibration_sha256=_calibration_hash(
            kernels.packs,
            profile,
            device,
            f"{skew!r}{placed.sha256 if placed else ''}{_swap_text(config, device)}",
        ),
    )


def _tables(config: Config, device: Gpu, profile: EngineProfile) -> KernelTables:
    data_dir = config.calibration.data_dir
    folder = DATA_DIR if data_dir is None else Path(data_dir)
    return load_tables(device.name, folder, profile.framework)


def _deployment(
    config: Config, shape: ModelShape, dtype: str, kv_dtype: str
) -> Deployment:
    """The model as it is split over the GPUs of a replica."""
    parallel = config.parallel
    return Deployment(
        model=shape,
        dtype=dtype,
        kv_dtype=kv_dtype,
        tp=parallel.tensor_parallel_size,
        ep=parallel.expert_parallel_size,
        dp=parallel.data_parallel_size,
        expert_copies=1.0 + config.moe.redundant_experts / max(shape.num_experts, 1),
        contexts_everywhere=config.moe.communication == "context_coherent",
        pp=parallel.pipeline_parallel_size,
    )


def _parts(pricer: StepCostModel, ingredients: _Ingredients) -> StepParts:
    """The split of an iteration into its kernels, as ``pricer`` prices it."""
    if isinstance(pricer.rows, PlacedRowCosts):
        return PlacedStepParts(placed=pricer.rows, **ingredients)
    return StepParts(**ingredients)


def _kernels(
    config: Config,
    tables: KernelTables,
    device: Gpu,
    deployment: Deployment,
    profile: EngineProfile,
) -> ModelKernels:
    cluster = config.cluster
    scale = MachineScale.of(
        device,
        deployment.dtype,
        hbm=cluster.hbm_bandwidth_scale,
        compute=cluster.flops_scale,
        link=cluster.link_bandwidth_scale,
    )
    return ModelKernels(
        tables=tables, gpu=device, deployment=deployment, profile=profile, scale=scale
    )


def _skew(config: Config, shape: ModelShape) -> RoutingSkew:
    measured = UNIFORM if config.moe.routing == "uniform" else routing_skew(shape.name)
    decode, prompt = config.moe.decode_skew, config.moe.prompt_skew
    if decode is None and prompt is None:
        return measured
    return RoutingSkew(
        measured.decode_skew if decode is None else decode,
        measured.prompt_skew if prompt is None else prompt,
        "configuration",
    )


def _power(device: Gpu, dtype: str, num_gpus: int) -> PowerModel:
    power = device.power
    return PowerModel(
        num_gpus=num_gpus,
        run_w=power.run_w(dtype),
        gap_w=power.gap_w,
        idle_w=power.idle_context_w,
        cap_w=power.cap_w,
        hbm_pj_per_byte=power.hbm_pj_per_byte,
        pj_per_flop=power.flop_pj(dtype),
    )


def _num_blocks(config: Config, device: Gpu, deployment: Deployment) -> int:
    """KV blocks of a replica, sized from memory or as configured.

    Raises:
        ConfigError: If the weights, or one request of max_model_len, do not fit.
    """
    engine = config.engine
    tokens = kv_cache_tokens(device, deployment, engine.gpu_memory_utilization)
    if engine.kv_cache_tokens is not None:
        tokens = engine.kv_cache_tokens
    blocks = tokens // engine.block_size
    if blocks * engine.block_size < engine.max_model_len:
        raise ConfigError(
            f"engine.max_model_len = {engine.max_model_len}: the KV cache beside"
            f" {deployment.model.name} on {deployment.tp * deployment.pp} x"
            f" {device.name} does not fit one such request: it holds {blocks} blocks"
            f" of {engine.block_size} tokens"
        )
    return blocks


def _swap_text(config: Config, device: Gpu) -> str:
    """What copies to the host are priced with; empty where none are."""
    return repr(host_copies(device)) if config.engine.preemption_mode == SWAP else ""


def _calibration_hash(
    packs: tuple[KernelTables, ...],
    profile: EngineProfile,
    device: Gpu,
    routing: str,
) -> str:
    rooflines = sha256(read_bytes(roofline_file(packs[0].data_dir)))
    values = (repr(profile), repr(device), routing)
    text = "\n".join((*(pack.sha256 for pack in packs), rooflines, *values))
    return sha256(text.encode())
