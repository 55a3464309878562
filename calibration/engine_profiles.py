"""Engine profiles: which kernels an engine runs, and what its host adds per iteration.

A profile is a named calibration. Its constants, each with its confidence and source,
and the measured numbers they have seen are in ``data/profiles.toml``.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

from calibration.kernels.experts import Inefficiency
from calibration.lookup import unknown_name
from calibration.model_shape import ModelShape
from sim.step_cost import HostTimes

CONFIDENCES: Final = ("high", "medium", "low")
"""Read or measured directly; fitted or inferred; assumed or taken over."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why to believe one constant of a profile.

    Attributes:
        constant: Its key in ``profiles.toml``, such as "host.decode_ns", or "host" for
            all host times that have no evidence of their own.
        confidence: One of ``CONFIDENCES``.
        source: Where it comes from.
    """

    constant: str
    confidence: str
    source: str


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """One serving engine at one version.

    Attributes:
        name: Name in the configuration.
        description: What engine this is.
        host: Host overhead per iteration.
        framework: Whose kernel tables it runs, "vllm", "sglang" or "trtllm".
        frontend_ns: From a request's arrival at the server to the engine's queue.
        async_scheduling: Whether an iteration is decided when the one before it begins.
        graph_rows: Batch sizes captured as CUDA graphs, increasing.
        custom_all_reduce_bytes: Largest message for the custom all-reduce kernel.
        kernel_factor: All kernel times against the tables, from an anchor.
        prefill_attention_factor: Prefill attention time against the tables.
        row_layer_ns: Time of small kernels without a table, per row and layer.
        moe: MoE roofline terms against the table of the untuned kernel; tuned kernels
            run as their tables say.
        untuned_moe: (GPU, experts, intermediate size per GPU) that run Triton's
            default configuration.
        launched_gemms: GPUs on which block-scaled fp8 GEMMs of models without latent
            attention take as long as vLLM's table launches them.
        sort_logit_ps: Time of sorting one logit of one decoding request, by GPU, which
            PyTorch's sampler does where sampling is truncated; "other" is every GPU
            that is not named. Empty where requests are sampled greedily.
        fitted_to: Measured numbers its constants have seen.
        note: What else to know; why nothing was seen, where ``fitted_to`` is empty.
        evidence: Confidence and source of every constant; does not price anything.
    """

    name: str
    description: str
    framework: str
    frontend_ns: int
    async_scheduling: bool
    host: HostTimes
    graph_rows: tuple[int, ...]
    custom_all_reduce_bytes: int
    kernel_factor: float
    prefill_attention_factor: float
    row_layer_ns: float
    moe: Inefficiency
    untuned_moe: tuple[tuple[str, int, int], ...]
    launched_gemms: tuple[str, ...]
    sort_logit_ps: Mapping[str, float]
    fitted_to: tuple[str, ...]
    note: str = field(default="", repr=False)
    evidence: tuple[Evidence, ...] = field(default=(), repr=False)

    def padded(self, rows: int) -> tuple[int, bool]:
        """Rows that run, and whether a CUDA graph replays them.

        A batch is padded to the next captured size; beyond the largest it runs
        eagerly, unpadded.
        """
        i = bisect_left(self.graph_rows, rows)
        if i == len(self.graph_rows):
            return rows, False
        return self.graph_rows[i], True

    def sorts_as(self, gpu: str) -> str:
        """Whose entry of ``sort_logit_ps`` a GPU takes."""
        return gpu if gpu in self.sort_logit_ps else "other"

    def sampling(self, gpu: str, model: ModelShape) -> EngineProfile:
        """The profile where it serves ``model``: sorting is time per request."""
        if not (self.sort_logit_ps and model.truncated_sampling):
            return self
        ps = self.sort_logit_ps[self.sorts_as(gpu)]
        own_ns = self.host.per_sequence_ns + round(model.vocab_size * ps / 1000)
        return replace(self, host=replace(self.host, per_sequence_ns=own_ns))

    def moe_table(self, gpu: str, num_experts: int, inter_per_gpu: int) -> str:
        """The kernel table its fused MoE layer is timed by."""
        untuned = (gpu, num_experts, inter_per_gpu) in self.untuned_moe
        return "moe_untuned" if untuned else "moe"


def profile_names() -> tuple[str, ...]:
    """Names of the shipped profiles."""
    return tuple(_document())


def engine_profile(name: str) -> EngineProfile:
    """A shipped profile by name.

    Raises:
        ConfigError: If there is no such profile.
    """
    entry = _document().get(name)
    if entry is None:
        raise unknown_name("calibration.profile", name, profile_names())
    host = entry["host"]
    return EngineProfile(
        name=name,
        description=entry["description"],
        framework=entry.get("framework", "vllm"),
        frontend_ns=entry["frontend_ns"],
        async_scheduling=entry.get("async_scheduling", False),
        host=HostTimes(
            decode_ns=host["decode_ns"],
            prefill_ns=host["prefill_ns"],
            mixed_ns=host["mixed_ns"],
            layered_ns=host["layered_ns"],
            per_layer_ns=host.get("per_layer_ns", 0),
            per_sequence_ns=host.get("per_sequence_ns", 0),
        ),
        graph_rows=_graph_rows(entry["graph_rows"]),
        custom_all_reduce_bytes=entry["custom_all_reduce_bytes"],
        kernel_factor=1.0,
        prefill_attention_factor=entry.get("prefill_attention_factor", 1.0),
        row_layer_ns=entry.get("row_layer_ns", 0.0),
        moe=Inefficiency(
            entry.get("moe_memory_factor", 1.0), entry.get("moe_compute_factor", 1.0)
        ),
        untuned_moe=tuple((g, e, i) for g, e, i in entry.get("untuned_moe", ())),
        launched_gemms=tuple(entry.get("launched_gemms", ())),
        sort_logit_ps=MappingProxyType(entry.get("sort_logit_ps", {})),
        fitted_to=tuple(entry["fitted_to"]),
        note=entry.get("note", ""),
        evidence=tuple(
            Evidence(constant, confidence, source)
            for constant, (confidence, source) in entry["evidence"].items()
        ),
    )


def _graph_rows(ranges: list[list[int]]) -> tuple[int, ...]:
    """Expand [first, last, step] ranges, ends included."""
    return tuple(
        rows for first, last, step in ranges for rows in range(first, last + 1, step)
    )


@cache
def _document() -> Mapping[str, Any]:
    text = resources.files("calibration").joinpath("data/profiles.toml").read_text()
    return MappingProxyType(tomllib.loads(text))
