"""Pools of unlike replicas in a configuration: the tables ``[pools.NAME]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sim.config_errors import ConfigKeyError, clip
from sim.config_fields import (
    CacheTokens,
    Count,
    Fraction,
    Name,
    OrNone,
    Replicas,
    Scale,
    Tokens,
    Usd,
)
from sim.config_multiplex import MULTIPLEXED
from sim.config_parallel import ParallelConfig
from sim.config_sections import ClusterConfig, EngineConfig, Section

POOLS: Final = "pools"
MOST_POOLS: Final = 16
BOTH: Final = "both"
PREFILL: Final = "prefill"
DECODE: Final = "decode"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)

STANDS_FOR: Final[Mapping[str, str]] = MappingProxyType(
    {
        "gpu": "cluster.gpu",
        "gpus_per_node": "cluster.gpus_per_node",
        "link_bandwidth_scale": "cluster.link_bandwidth_scale",
        "tensor_parallel_size": "parallel.tensor_parallel_size",
        "expert_parallel_size": "parallel.expert_parallel_size",
        "replicas": "parallel.replicas",
        "scheduler": "engine.scheduler",
        "max_num_batched_tokens": "engine.max_num_batched_tokens",
        "num_layer_groups": "engine.num_layer_groups",
        "max_num_seqs": "engine.max_num_seqs",
        "gpu_memory_utilization": "engine.gpu_memory_utilization",
        "kv_cache_tokens": "engine.kv_cache_tokens",
        "usd_per_gpu_hour": "cost.usd_per_gpu_hour",
    }
)
"""The key of the configuration that a key of a pool takes the place of."""


def _own(key: str, what: str) -> Any:
    """A field that is that of the whole configuration unless it is set."""
    return Field(default=None, description=f"{what}; none is {STANDS_FOR[key]}.")


class PoolConfig(Section):
    """Replicas that are alike; what is none here is that of the configuration."""

    replicas: Replicas = Field(default=1, description="Copies of the model in it.")
    role: Literal["both", "prefill", "decode"] = Field(
        default=BOTH,
        description="Whether its replicas serve requests whole, or only prefill them, "
        "or only decode what a prefill pool hands over.",
    )
    gpu: Annotated[Name | None, OrNone] = _own("gpu", "Catalogue name of its GPU")
    gpus_per_node: Annotated[Count | None, OrNone] = _own(
        "gpus_per_node", "GPUs in each of its nodes"
    )
    link_bandwidth_scale: Annotated[Scale | None, OrNone] = _own(
        "link_bandwidth_scale", "Factor on the bandwidth of its links"
    )
    tensor_parallel_size: Annotated[Count | None, OrNone] = _own(
        "tensor_parallel_size", "GPUs of one of its replicas"
    )
    expert_parallel_size: Annotated[Count | None, OrNone] = _own(
        "expert_parallel_size", "Expert parallel size of its replicas"
    )
    scheduler: Annotated[Name | None, OrNone] = _own(
        "scheduler", "Its scheduling policy"
    )
    max_num_batched_tokens: Annotated[Tokens | None, OrNone] = _own(
        "max_num_batched_tokens", "Token budget of its iterations"
    )
    num_layer_groups: Annotated[Count | None, OrNone] = _own(
        "num_layer_groups", "The most layer groups of its batches"
    )
    max_num_seqs: Annotated[Count | None, OrNone] = _own(
        "max_num_seqs", "The most requests in one of its iterations"
    )
    gpu_memory_utilization: Annotated[Fraction | None, OrNone] = _own(
        "gpu_memory_utilization", "Share of HBM it may use"
    )
    kv_cache_tokens: Annotated[CacheTokens | None, OrNone] = _own(
        "kv_cache_tokens", "KV capacity of one of its replicas, tokens"
    )
    usd_per_gpu_hour: Annotated[Usd | None, OrNone] = _own(
        "usd_per_gpu_hour", "Price of one of its GPUs for one hour, US dollars"
    )

    def changes(self) -> dict[str, object]:
        """What it changes of the configuration, by dotted key."""
        values = {key: getattr(self, key) for key in STANDS_FOR}
        return {STANDS_FOR[k]: v for k, v in values.items() if v is not None}


class PoolsConfig(BaseModel):
    """Tables of pools by name, in order; none is what the other tables say."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    __pydantic_extra__: dict[str, PoolConfig] = Field(init=False)

    @model_validator(mode="before")
    @classmethod
    def _tables(cls, data: Any) -> Any:
        """``NAME.key`` of a command line as key of a table NAME."""
        if not isinstance(data, Mapping):
            return data
        tables: dict[str, Any] = {}
        for name, value in data.items():
            pool, dot, key = name.partition(".")
            if dot:
                tables.setdefault(pool, {})[key] = value
            else:
                tables[name] = value
        return tables

    def items(self) -> tuple[tuple[str, PoolConfig], ...]:
        """Names and pools: those that prefill before those that decode."""
        pools = tuple((self.__pydantic_extra__ or {}).items())
        return tuple(sorted(pools, key=lambda pool: pool[1].role == DECODE))

    def resolved(self, engine: EngineConfig) -> PoolsConfig:
        """The same pools, with the token budgets that hang on their schedulers."""
        filled = {}
        for name, pool in (self.__pydantic_extra__ or {}).items():
            keys = ("scheduler", "max_num_batched_tokens")
            own = {key: getattr(pool, key) for key in keys}
            given = {key: value for key, value in own.items() if value is not None}
            budget = engine.model_copy(update=given).token_budget
            update = {"max_num_batched_tokens": budget}
            filled[name] = pool.model_copy(update=update)
        return PoolsConfig.model_validate(filled)

    def __bool__(self) -> bool:
        return bool(self.__pydantic_extra__)

    @property
    def replicas(self) -> int:
        """In all pools."""
        return sum(pool.replicas for _, pool in self.items())

    @property
    def prefill_replicas(self) -> int | None:
        """In prefill pools; None without any."""
        count = sum(p.replicas for _, p in self.items() if p.role == PREFILL)
        return count or None


def check_pool_key(name: str, value: object) -> None:
    """Refuse what is no name of a pool.

    Raises:
        ConfigKeyError: With what a name is made of.
    """
    if not _NAME.fullmatch(name):
        raise ConfigKeyError(
            f"{POOLS}.{clip(name)}",
            value,
            "the name of a pool is 1 to 32 of a-z, 0-9 and _, a letter first",
        )


def check_pools(
    pools: PoolsConfig,
    parallel: ParallelConfig,
    cluster: ClusterConfig,
    engine: EngineConfig,
) -> None:
    """Refuse pools that cannot serve, and what does not go with pools.

    Raises:
        ConfigKeyError: With the key and what it must be.
    """
    items = pools.items()
    if len(items) > MOST_POOLS:
        name = items[-1][0]
        most = f"there may be at most {MOST_POOLS} pools"
        raise ConfigKeyError(f"{POOLS}.{name}.replicas", items[-1][1].replicas, most)
    _check_roles(items)
    rules: tuple[tuple[str, object, tuple[object, ...]], ...] = (
        ("parallel.replicas", parallel.replicas, (1, pools.replicas)),
        (
            "parallel.prefill_replicas",
            parallel.prefill_replicas,
            (None, pools.prefill_replicas),
        ),
        ("parallel.pipeline_parallel_size", parallel.pipeline_parallel_size, (1,)),
        ("parallel.data_parallel_size", parallel.data_parallel_size, (1,)),
        ("parallel.min_replicas", parallel.min_replicas, (None,)),
        ("cluster.outages", cluster.outages, (None,)),
        ("cluster.mtbf_s", cluster.mtbf_s, (None,)),
        ("engine.fidelity", engine.fidelity, ("iteration",)),
        ("engine.preemption_mode", engine.preemption_mode, ("recompute",)),
    )
    for key, value, allowed in rules:
        if value not in allowed:
            given = dict.fromkeys(allowed)
            words = " or ".join("none" if v is None else f"{v}" for v in given)
            raise ConfigKeyError(key, value, f"must be {words} with [{POOLS}]")
    _check_schedulers(items, engine)


def _check_schedulers(
    items: tuple[tuple[str, PoolConfig], ...], engine: EngineConfig
) -> None:
    """SMs that prefill and decode share are those of replicas that are alike."""
    chosen = {f"{POOLS}.{name}.scheduler": pool.scheduler for name, pool in items}
    for key, scheduler in {**chosen, "engine.scheduler": engine.scheduler}.items():
        if scheduler == MULTIPLEXED:
            words = f"must be another than {MULTIPLEXED} with [{POOLS}]"
            raise ConfigKeyError(key, scheduler, words)


def _check_roles(items: tuple[tuple[str, PoolConfig], ...]) -> None:
    """What is prefilled is decoded somewhere, and nobody does half the work alone."""
    roles = {pool.role for _, pool in items}
    missing = {PREFILL: DECODE, DECODE: PREFILL}
    for name, pool in items:
        other = missing.get(pool.role)
        if other is not None and other not in roles:
            allowed = f'needs a pool of role "{other}"'
        elif pool.role == BOTH and roles != {BOTH}:
            allowed = f'must be "{PREFILL}" or "{DECODE}", as other pools are'
        else:
            continue
        raise ConfigKeyError(f"{POOLS}.{name}.role", pool.role, allowed)
