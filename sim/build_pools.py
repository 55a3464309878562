"""The machines of a run: one for all replicas, or one for each pool of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calibration.pack_format import sha256
from sim.build import Machine, build_machine
from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.config_pools import POOLS
from sim.handover import KvPaths, PooledLinks
from sim.pools import Pool, in_pool, own_table, pools_of, replica_nodes


@dataclass(frozen=True, slots=True)
class PoolMachine:
    """A pool and what its replicas run on.

    Attributes:
        pool: Its name, role and configuration.
        machine: Model, GPUs and engine of each of its replicas.
        first: Index of its first replica in the cluster.
    """

    pool: Pool
    machine: Machine
    first: int

    @property
    def replicas(self) -> range:
        """Indices of its replicas in the cluster."""
        return range(self.first, self.first + self.pool.replicas)


@dataclass(frozen=True, slots=True)
class Machines:
    """What a configuration runs on.

    Attributes:
        machine: That of all replicas, or of the first pool.
        pools: Pools in order of their replicas; none without tables ``[pools.NAME]``.
        links: What carries KV caches between replicas.
    """

    machine: Machine
    pools: tuple[PoolMachine, ...]
    links: KvPaths

    @property
    def calibration_sha256(self) -> str:
        """Of the machine, or of all that differ, in order."""
        each = [self.machine, *(part.machine for part in self.pools)]
        hashes = list(dict.fromkeys(machine.calibration_sha256 for machine in each))
        return hashes[0] if len(hashes) == 1 else sha256(" ".join(hashes).encode())

    def of_replicas(self, count: int) -> Sequence[Machine]:
        """The machine of each of ``count`` replicas."""
        if not self.pools:
            return [self.machine] * count
        return [pool.machine for pool in self.pools for _ in pool.replicas]


def alike(machine: Machine) -> Machines:
    """One machine for all replicas."""
    return Machines(machine, (), machine.links)


def build_machines(
    config: Config, build: Callable[[Config], Machine] = build_machine
) -> Machines:
    """Build the machine of a configuration, or those of its pools.

    Args:
        config: All of it.
        build: Gives the machine of a configuration without pools.

    Raises:
        ConfigError: As :func:`sim.build.build_machine`, with the pool's name; or if a
            link between pools has no bandwidth.
    """
    pools = pools_of(config)
    if not pools:
        return alike(build(config))
    built: list[PoolMachine] = []
    first = 0
    for pool in pools:
        with in_pool(pool.name, own_table(config.pools, pool.name)):
            built.append(PoolMachine(pool, build(pool.config), first))
        first += pool.replicas
    return Machines(built[0].machine, tuple(built), _links(config, built))


def _links(config: Config, built: Sequence[PoolMachine]) -> PooledLinks:
    for part in built:
        links = part.machine.links
        if min(links.node_bytes_per_s, links.network_bytes_per_s) < 1:
            cluster = part.pool.config.cluster
            own = own_table(config.pools, part.pool.name)
            with in_pool(part.pool.name, own):
                raise ConfigKeyError(
                    "cluster.link_bandwidth_scale",
                    cluster.link_bandwidth_scale,
                    f"leaves less than 1 byte/s of KV caches to [{POOLS}]",
                )
    each = tuple(part.machine.links for part in built for _ in part.replicas)
    return PooledLinks(each, replica_nodes(config, tuple(part.pool for part in built)))
