"""The datasets by name; a new one is a table in ``data/`` or a sampler, and a line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Final

from sim.errors import ConfigError
from workloads.lengths import LengthSampler, QuantileLengths, RandomLengths
from workloads.spec import WorkloadSpec

DatasetFactory = Callable[[WorkloadSpec], LengthSampler]


def load_table(name: str) -> QuantileLengths:
    """Shipped quantile table ``data/<name>.toml``; its provenance is in the file."""
    file = resources.files("workloads") / "data" / f"{name}.toml"
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    return QuantileLengths(
        name=name,
        probability=tuple(table["probability"]),
        prompt_tokens=tuple(table["prompt_tokens"]),
        output_tokens=tuple(table["output_tokens"]),
        correlation=table["correlation"],
    )


def _shipped(name: str) -> DatasetFactory:
    return lambda _spec: load_table(name)


def _random(spec: WorkloadSpec) -> LengthSampler:
    return RandomLengths(
        spec.random_input_len, spec.random_output_len, spec.random_range_ratio
    )


DATASETS: Final[Mapping[str, DatasetFactory]] = MappingProxyType(
    {
        "arxiv": _shipped("arxiv"),
        "azure-conv": _shipped("azure-conv"),
        "sharegpt": _shipped("sharegpt"),
        "random": _random,
    }
)

CUT_TO_CONTEXT: Final = frozenset({"arxiv"})
"""Datasets of documents, of which a client sends what fits in the server's context.

The layered-prefill evaluation serves articles of mean 8.7-9.2 k tokens, one in ten of
them beyond its context of 16384, and no request of it fails.
"""


def sampler_for(spec: WorkloadSpec) -> LengthSampler:
    """Length sampler of ``spec.dataset``.

    Raises:
        ConfigError: If no such dataset is registered.
    """
    factory = DATASETS.get(spec.dataset)
    if factory is None:
        allowed = ", ".join(sorted(DATASETS))
        raise ConfigError(f"workload.dataset: {spec.dataset!r}; allowed: {allowed}")
    return factory(spec)
