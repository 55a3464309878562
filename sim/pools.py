"""Pools of unlike replicas: the configuration of each, and the nodes they stand on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.config_pools import POOLS, STANDS_FOR, PoolConfig, PoolsConfig
from sim.errors import ConfigError

_KEYS: Final = {full: key for key, full in STANDS_FOR.items()}
# A pool on its own serves requests whole, wherever it stands.
_ALONE: Final = {"parallel.prefill_replicas": None, "parallel.kv_transfer": "whole"}


@dataclass(frozen=True, slots=True)
class Pool:
    """Replicas that are alike.

    Attributes:
        name: Its table.
        role: "both", "prefill" or "decode".
        config: What its replicas would be configured by on their own.
    """

    name: str
    role: str
    config: Config

    @property
    def replicas(self) -> int:
        """How many."""
        return self.config.parallel.replicas


def pools_of(config: Config) -> tuple[Pool, ...]:
    """The pools of a configuration, in order of their replicas; none without tables.

    Raises:
        ConfigKeyError: If what a pool says does not fit together, or the nodes do not
            hold all replicas.
    """
    pools = tuple(_pool(config, name, own) for name, own in config.pools.items())
    replica_nodes(config, pools)
    return pools


def counted(config: Config) -> Config:
    """The configuration with the replicas of its pools counted.

    Raises:
        ConfigKeyError: As :func:`pools_of`.
    """
    pools = config.pools
    if not pools:
        return config
    pools_of(config)
    counts = {"replicas": pools.replicas, "prefill_replicas": pools.prefill_replicas}
    return config.model_copy(
        update={"parallel": config.parallel.model_copy(update=counts)}
    )


@contextmanager
def in_pool(name: str, own: PoolConfig) -> Iterator[None]:
    """Say of an error that it is a pool's, by the pool's own keys where it has them.

    Raises:
        ConfigKeyError: As the one inside.
        ConfigError: As the one inside.
    """
    try:
        yield
    except ConfigKeyError as error:
        related = tuple(_renamed(name, own, key) for key in error.related)
        key = _renamed(name, own, error.key)
        said = "" if key != error.key else f" (pool {name})"
        raise ConfigKeyError(
            key, error.value, error.allowed + said, (*related, *error.related)
        ) from None
    except ConfigError as error:
        raise ConfigError(f"{POOLS}.{name}: {error}") from None


def _renamed(name: str, own: PoolConfig, key: str) -> str:
    short = _KEYS.get(key)
    if short is None or getattr(own, short) is None:
        return key
    return f"{POOLS}.{name}.{short}"


def _pool(config: Config, name: str, own: PoolConfig) -> Pool:
    data = config.model_dump(exclude={"pools"})
    for key, value in (_ALONE | own.changes()).items():
        section, _, item = key.partition(".")
        data[section][item] = value
    per_node = data["cluster"]["gpus_per_node"]
    size = data["parallel"]["tensor_parallel_size"]
    data["cluster"]["nodes"] = -(-own.replicas // max(per_node // size, 1))
    with in_pool(name, own):
        return Pool(name, own.role, Config.model_validate(data))


def replica_nodes(config: Config, pools: tuple[Pool, ...]) -> tuple[int, ...]:
    """The node of every replica: nodes are filled in order, each with one kind of GPU.

    Raises:
        ConfigKeyError: If there are not as many nodes.
    """
    nodes: list[int] = []
    kind: tuple[str, int] | None = None
    node, used = -1, 0
    for pool in pools:
        cluster, parallel = pool.config.cluster, pool.config.parallel
        own, size = (cluster.gpu, cluster.gpus_per_node), parallel.gpus_per_replica
        for _ in range(pool.replicas):
            if own != kind or used + size > cluster.gpus_per_node:
                kind, node, used = own, node + 1, 0
            used += size
            nodes.append(node)
    if node + 1 > config.cluster.nodes:
        raise ConfigKeyError(
            "cluster.nodes",
            config.cluster.nodes,
            f"the replicas of [{POOLS}] need {node + 1} nodes, each with GPUs of one"
            " kind",
        )
    return tuple(nodes)


def own_table(pools: PoolsConfig, name: str) -> PoolConfig:
    """The table of a pool."""
    return dict(pools.items())[name]
