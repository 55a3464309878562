"""How a measurement was made, as the keys of a configuration.

One class a protocol: its fields are what the publication says, its ``settings`` the
runs that repeat it. Lengths of dataset "random" are uniform on [L(1-r), L(1+r)].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final, Protocol

Settings = dict[str, object]

# InferenceX draws lengths from [0.8 L, L]: centre 0.9 L, ratio 0.1 / 0.9.
_INFERENCEX_CENTRE: Final = 0.9
_INFERENCEX_RATIO: Final = 0.1 / _INFERENCEX_CENTRE
_INFERENCEX_ROUNDS: Final = 10  # prompts per client


class MeasurementProtocol(Protocol):
    """One way to load an engine."""

    @property
    def steady_batch(self) -> int | None:
        """Batch of the steady state that was measured; None: the whole run was."""
        ...

    @property
    def random_arrivals(self) -> bool:
        """Whether arrival times are drawn, so that runs differ much by seed."""
        ...

    def settings(self) -> tuple[Settings, ...]:
        """Configuration keys of each run, seed left out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceX:
    """InferenceX: a closed loop of C clients, 10 C prompts, max_num_seqs = C.

    Attributes:
        input_len: Longest prompt, tokens; the shortest is 0.8 of it.
        output_len: Longest output, tokens; the shortest is 0.8 of it.
        max_concurrency: Clients C.
    """

    input_len: int
    output_len: int
    max_concurrency: int
    steady_batch: ClassVar[None] = None
    random_arrivals: ClassVar[bool] = False

    def settings(self) -> tuple[Settings, ...]:
        """One run; the ends of the length range are met within two tokens."""
        return (
            _random(
                round(_INFERENCEX_CENTRE * self.input_len),
                round(_INFERENCEX_CENTRE * self.output_len),
                _INFERENCEX_RATIO,
            )
            | {
                "engine.max_num_seqs": self.max_concurrency,
                "workload.max_concurrency": self.max_concurrency,
                "workload.num_requests": _INFERENCEX_ROUNDS * self.max_concurrency,
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """ML.ENERGY: all requests wait from the start, at most B run; steady state only.

    The publication sends 1024 requests (or a multiple of 198); ``settings`` sends
    max(2 B, 256), which is at least one generation of steady state, and enough of
    them where B is small.

    Attributes:
        input_len: Mean prompt length, tokens.
        output_len: Mean output length, tokens.
        range_ratio: r of both lengths; only their means are known.
        max_num_seqs: Batch B.
    """

    input_len: int
    output_len: int
    range_ratio: float
    max_num_seqs: int
    random_arrivals: ClassVar[bool] = False

    @property
    def steady_batch(self) -> int:
        """The steady state runs B requests."""
        return self.max_num_seqs

    def settings(self) -> tuple[Settings, ...]:
        """One run."""
        return (
            _random(self.input_len, self.output_len, self.range_ratio)
            | {
                "engine.max_num_seqs": self.max_num_seqs,
                "workload.request_rate": "inf",
                "workload.num_requests": max(2 * self.max_num_seqs, 256),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """Clients that each send their next request when the last one finished.

    Attributes:
        input_len: Prompt length, tokens.
        output_len: Output length, tokens.
        max_concurrency: Clients.
        num_requests: Requests in all.
    """

    input_len: int
    output_len: int
    max_concurrency: int
    num_requests: int
    steady_batch: ClassVar[None] = None
    random_arrivals: ClassVar[bool] = False

    def settings(self) -> tuple[Settings, ...]:
        """One run."""
        return (
            _random(self.input_len, self.output_len, 0.0)
            | {
                "workload.max_concurrency": self.max_concurrency,
                "workload.num_requests": self.num_requests,
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop:
    """Requests at one or several rates, one run each, whatever the engine does.

    Attributes:
        request_rates: Requests per second; more than one only where the metric is read
            off a sweep.
        dataset: Length law; the next three are those of "random".
        input_len: Centre of prompt lengths, tokens.
        output_len: Centre of output lengths, tokens.
        range_ratio: r of both.
        burstiness: 1 is Poisson, large is constant gaps.
        num_requests: Requests in all; None: as many as arrive in ``duration_s``.
        duration_s: Seconds of arrivals.
    """

    request_rates: tuple[float, ...]
    dataset: str = "random"
    input_len: int | None = None
    output_len: int | None = None
    range_ratio: float | None = None
    burstiness: float = 1.0
    num_requests: int | None = None
    duration_s: float | None = None
    steady_batch: ClassVar[None] = None
    random_arrivals: ClassVar[bool] = True

    def settings(self) -> tuple[Settings, ...]:
        """One run per rate."""
        shared: Settings = {
            "workload.dataset": self.dataset,
            "workload.random_input_len": self.input_len,
            "workload.random_output_len": self.output_len,
            "workload.random_range_ratio": self.range_ratio,
            "workload.burstiness": self.burstiness,
            "workload.num_requests": self.num_requests,
            "workload.duration_s": self.duration_s,
        }
        return tuple(
            shared | {"workload.request_rate": rate} for rate in self.request_rates
        )


PROTOCOLS: Final[Mapping[str, type[InferenceX | Burst | ClosedLoop | OpenLoop]]] = (
    MappingProxyType(
        {
            "inferencex": InferenceX,
            "burst": Burst,
            "closed-loop": ClosedLoop,
            "open-loop": OpenLoop,
        }
    )
)


def _random(input_len: int, output_len: int, range_ratio: float) -> Settings:
    return {
        "workload.dataset": "random",
        "workload.random_input_len": input_len,
        "workload.random_output_len": output_len,
        "workload.random_range_ratio": range_ratio,
    }
