"""One measured serving case: what was run, how, and what came out.

A number is *calibration* for a profile if any constant behind the prediction has seen
it, else *validation*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from calibration.engine_profiles import engine_profile, profile_names
from calibration.protocols import MeasurementProtocol, Settings

FALLBACK_PROFILE: Final = "vllm-0.24"
SLO_RATE: Final = "rate_at_90_slo"


@dataclass(frozen=True, slots=True)
class MetricKind:
    """The unit of a metric and the group it is averaged in."""

    unit: str
    group: str


STATISTICS: Final = ("mean", "median", "p90", "p99")
TTFT: Final = "TTFT"
OVERLOADED_TTFT: Final = "TTFT overloaded"
METRICS: Final[Mapping[str, MetricKind]] = MappingProxyType(
    {
        f"{statistic}_{name}_ms": MetricKind("ms", group)
        for name, group in (
            ("ttft", TTFT),
            ("tpot", "TPOT/ITL"),
            ("itl", "TPOT/ITL"),
            ("e2el", "E2E"),
        )
        for statistic in STATISTICS
    }
    | {
        "output_throughput": MetricKind("tok/s", "throughput"),
        "power_per_gpu_w": MetricKind("W", "power"),
        "energy_per_output_token_j": MetricKind("J/token", "energy"),
        "energy_per_token_j": MetricKind("J/token", "energy"),
        SLO_RATE: MetricKind("req/s", "SLO rate"),
    }
)
"""Every metric the registry may hold, under the keys of a run's summary."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One published number.

    Attributes:
        metric: Key of ``METRICS``.
        value: As published, in ``unit``.
        unit: As the kind of metric says.
        seen_by: Engine profiles, or GPUs for their power constants, that have seen it.
    """

    metric: str
    value: float
    unit: str
    seen_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What was running, under the names of our catalogues.

    Attributes:
        gpu: Catalogue name of the GPU.
        num_gpus: GPUs in all replicas.
        tp: Tensor parallel size.
        ep: Expert parallel size, 1 or ``tp``.
        replicas: Copies of the model.
        router: How requests were spread over them, as far as it is known.
        model: Catalogue name of the model.
        dtype: Weight format.
        engine: Framework and version as published.
        profile: Engine profile that stands for it; one that is not shipped falls back
            to ``FALLBACK_PROFILE``.
        scheduler: Scheduling policy.
        options: Keys of the configuration's table ``engine``.
    """

    gpu: str
    num_gpus: int
    tp: int
    ep: int = 1
    replicas: int = 1
    router: str = "round-robin"
    model: str
    dtype: str
    engine: str
    profile: str
    scheduler: str = "chunked-prefill"
    options: Mapping[str, object]

    @property
    def shipped_profile(self) -> str:
        """The profile that is used."""
        return self.profile if self.profile in profile_names() else FALLBACK_PROFILE

    def settings(self) -> Settings:
        """The keys of a configuration that do not concern the workload."""
        return {
            "model.name": self.model,
            "model.dtype": self.dtype,
            "cluster.gpu": self.gpu,
            "cluster.gpus_per_node": self.num_gpus,
            "parallel.tensor_parallel_size": self.tp,
            "parallel.expert_parallel_size": self.ep,
            "parallel.replicas": self.replicas,
            "parallel.router": self.router,
            "calibration.profile": self.shipped_profile,
            "engine.scheduler": self.scheduler,
        } | {f"engine.{key}": value for key, value in self.options.items()}


@dataclass(frozen=True, slots=True)
class Case:
    """One measured run.

    Attributes:
        id: Unique name.
        source: Citation.
        note: What a reader must know about the numbers.
        setup: What was running.
        protocol: How it was loaded.
        overloaded: The engine could not keep up: queueing decides its TTFT.
        measurements: What came out.
    """

    id: str
    source: str
    note: str
    setup: Setup
    protocol: MeasurementProtocol
    overloaded: bool
    measurements: tuple[Measurement, ...]

    def group(self, metric: str) -> str:
        """The group a metric of this case is averaged in."""
        group = METRICS[metric].group
        return OVERLOADED_TTFT if self.overloaded and group == TTFT else group

    def is_calibration(self, measurement: Measurement) -> bool:
        """Whether a constant behind the prediction has seen the number.

        Either the registry says so, or the profile lists "case" or "case:metric"
        among what it was fitted to.
        """
        profile = self.setup.shipped_profile
        by = {profile, self.setup.gpu}.intersection(measurement.seen_by)
        return bool(by) or profile_saw(profile, self.id, measurement.metric)


def profile_saw(profile: str, case: str, metric: str) -> bool:
    """Whether a profile names a case, or one metric of it, in what it was fitted to."""
    names = {case, f"{case}:{metric}"}
    return bool(names.intersection(engine_profile(profile).fitted_to))


@dataclass(frozen=True, slots=True)
class RequestLog:
    """A per-request log that the project does not ship, by its file name.

    Attributes:
        file: Name of the file.
        source: Citation.
        note: What a reader must know about the protocol.
        case: The case of the registry that gives numbers of the same measurement; the
            file's name where there is none.
        setup: What was running.
        leave_out: Runs in the file not to compare, such as collapsed ones.
    """

    file: str
    source: str
    note: str
    case: str
    setup: Setup
    leave_out: tuple[str, ...]

    def is_calibration(self, metric: str) -> bool:
        """Whether a constant behind the prediction has seen ``metric`` (ttft, tpot).

        One that has seen a statistic has seen the requests, and so the others too.
        """
        profile = self.setup.shipped_profile
        return any(
            profile_saw(profile, self.case, f"{statistic}_{metric}_ms")
            for statistic in STATISTICS
        )


@dataclass(frozen=True, slots=True)
class NotSimulatable:
    """A measured case that the shipped data cannot stand for, and why."""

    id: str
    source: str
    reason: str
