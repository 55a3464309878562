"""From a configuration and its machine to replicas behind a router."""

from __future__ import annotations

from calibration.kernels.model_kernels import Deployment
from sim.build import Machine
from sim.build_multiplex import shared_gpus
from sim.build_pools import Machines, alike
from sim.build_swap import swap_space
from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.config_pipeline import micro_batches
from sim.config_pools import PREFILL
from sim.engine import Engine
from sim.handover import Disaggregation
from sim.host_link import swap_pricer
from sim.multiplex import MultiplexPricer, SharedGpus
from sim.outages import NO_OUTAGES, Outages
from sim.queues import QUEUES
from sim.queues.ahead import ScheduledAhead
from sim.routers import ROUTERS
from sim.scaling import Scaling
from sim.schedulers import SCHEDULERS, SchedulerOptions
from sim.schedulers.pace import Pace
from sim.shell.cluster import Cluster, Disaggregated
from sim.step import DecodePricer, StepPricer
from sim.swapping import SwappingEngine
from sim.units import NS_PER_MS, ns_from_s
from sim.view import EngineLimits
from sim.what_if import what_if_pricer
from workloads.outages import draw_outages, read_outages
from workloads.workload import Workload


def build_cluster(
    config: Config,
    machine: Machine | Machines,
    workload: Workload,
    *,
    fast_forward: bool = True,
    detailed: bool = True,
    pricer: StepPricer | None = None,
) -> Cluster:
    """Replicas with fresh engines behind a router; see :class:`Cluster`.

    ``machine`` is that of all replicas, or those of all pools; ``pricer`` takes the
    place of its closed form.

    Raises:
        ConfigError: If a file of outages is missing or malformed.
    """
    machines = alike(machine) if isinstance(machine, Machine) else machine
    pricers: StepPricer | list[StepPricer]
    if machines.pools:
        engines, pricers = _pooled(machines)
    else:
        engines, pricers = _alike(config, machines.machine, pricer)
    router = ROUTERS[config.parallel.router](config.seed)
    cluster = Cluster(
        engines,
        pricers,
        router,
        workload.max_concurrency,
        machines.machine.profile.frontend_ns,
        fast_forward=fast_forward,
        detailed=detailed,
        split=_split(config, machines),
    )
    cluster.suffer(outages_of(config))
    if (scaling := _scaling(config)) is not None:
        cluster.scale(scaling)
    return cluster


def _alike(
    config: Config, machine: Machine, pricer: StepPricer | None
) -> tuple[list[Engine], StepPricer | list[StepPricer]]:
    """Engines of replicas that are alike, and their pricer, or one each."""
    shared = shared_gpus(config, machine)
    if shared is not None and isinstance(machine.pricer, DecodePricer):
        pricer = MultiplexPricer(machine.pricer, shared, machine.power)
    prefill = config.parallel.prefill_replicas or 0
    engines = _engines(config, machine, prefill, shared)
    return engines, _pricers(config, machine, pricer)


def _pooled(machines: Machines) -> tuple[list[Engine], list[StepPricer]]:
    """Engines and pricers of all pools, in order."""
    engines: list[Engine] = []
    pricers: list[StepPricer] = []
    for part in machines.pools:
        pool, count = part.pool, part.pool.replicas
        engines += _engines(
            pool.config, part.machine, count if pool.role == PREFILL else 0
        )
        own = _pricers(pool.config, part.machine, None)
        pricers += own if isinstance(own, list) else [own] * count
    return engines, pricers


def _engines(
    config: Config, machine: Machine, prefill: int, shared: SharedGpus | None = None
) -> list[Engine]:
    """Fresh engines, the first ``prefill`` of which hand over what they prefilled.

    ``shared`` are GPUs whose SMs prefill and decode share.
    """
    limits = _limits(config, machine.deployment)
    closed_form = what_if_pricer(config, machine.pricer, machine.power)
    options = SchedulerOptions(
        limits=limits,
        num_layer_groups=config.engine.num_layer_groups,
        layer_group_rule=config.engine.layer_group_rule,
        pace=Pace(_tbt_target_ns(config), closed_form),
        clock=shared,
    )
    swap = swap_space(config, machine)

    def engine(index: int) -> Engine:
        policy = SCHEDULERS[config.engine.scheduler](options)
        queue = QUEUES[config.engine.queue]()
        if machine.profile.async_scheduling:
            queue = ScheduledAhead(queue)
        if swap is not None:
            blocks = machine.num_blocks
            return SwappingEngine(policy, limits, blocks, swap.blocks, queue)
        return Engine(
            policy,
            limits,
            machine.num_blocks,
            queue,
            hands_over=index < prefill,
            prefix_caching=config.engine.enable_prefix_caching,
        )

    return [engine(index) for index in range(config.parallel.replicas)]


def _scaling(config: Config) -> Scaling | None:
    parallel = config.parallel
    if parallel.min_replicas is None or parallel.startup_s is None:
        return None
    return Scaling(
        parallel.min_replicas,
        parallel.target_outstanding,
        ns_from_s(parallel.startup_s),
        ns_from_s(parallel.scale_down_delay_s),
    )


def outages_of(config: Config) -> Outages:
    """Failures and drains of the replicas of a configuration.

    Raises:
        ConfigError: If a file of outages is missing or malformed.
    """
    cluster, replicas = config.cluster, config.parallel.replicas
    if cluster.outages is not None:
        return read_outages(cluster.outages, replicas)
    if cluster.mtbf_s is not None and cluster.repair_s is not None:
        return draw_outages(config.seed, replicas, cluster.mtbf_s, cluster.repair_s)
    return NO_OUTAGES


def _pricers(
    config: Config, machine: Machine, pricer: StepPricer | None
) -> StepPricer | list[StepPricer]:
    """One pricer for all replicas, or one each where experts move.

    Raises:
        ConfigKeyError: If a power cap cannot be met, or is set with experts that move.
    """
    fresh = machine.fresh_pricer
    if fresh is None:
        capped = what_if_pricer(config, pricer or machine.pricer, machine.power)
        swap = swap_space(config, machine)
        return capped if swap is None else swap_pricer(capped, swap.link, machine.power)
    cap_w = config.cluster.power_cap_w
    if cap_w is not None:
        raise ConfigKeyError(
            "cluster.power_cap_w",
            cap_w,
            "must be none with moe.rebalance_interval or moe.topic_period_s",
        )
    return [fresh() for _ in range(config.parallel.replicas)]


def _split(config: Config, machines: Machines) -> Disaggregated | None:
    """Pools for prefill and decode, with a router of its own for the second."""
    prefill = config.parallel.prefill_replicas
    if prefill is None:
        return None
    router = ROUTERS[config.parallel.router](config.seed + 1)
    kv_transfer = config.parallel.kv_transfer
    return Disaggregated(Disaggregation(prefill, machines.links, kv_transfer), router)


def _tbt_target_ns(config: Config) -> int | None:
    """Longest iteration of the policies that keep a target."""
    target_ms = config.engine.tbt_target_ms or config.slo.itl_ms
    return None if target_ms is None else round(target_ms * NS_PER_MS)


def _limits(config: Config, deployment: Deployment) -> EngineLimits:
    """The engine's options; the budget is that of all micro-batches in flight."""
    engine = config.engine
    in_flight = micro_batches(config.parallel, engine)
    return EngineLimits(
        num_layers=deployment.model.num_layers,
        max_num_batched_tokens=in_flight * engine.token_budget,
        max_num_seqs=engine.max_num_seqs,
        max_model_len=engine.max_model_len,
        block_size=engine.block_size,
        stage_ends=tuple(stage.last for stage in deployment.stages),
    )
