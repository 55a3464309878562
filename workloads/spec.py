"""What a user asks of a workload, before any random number is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sim.errors import ConfigError
from workloads import limits


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """Options of a workload; names and defaults are those of ``vllm bench serve``.

    Attributes:
        dataset: Key of ``DATASETS``; ignored when ``path`` is given.
        path: A trace to read instead, see ``workloads.traces``. Its arrival times, if
            it has any, are replayed as they are: ``request_rate`` and ``burstiness``
            then have no effect.
        request_rate: Mean requests per second; ``inf`` sends all at 0.
        burstiness: Gamma shape of the gaps, 1 / CV**2; ``inf`` for constant gaps.
        max_concurrency: Closed loop: so many clients, each sends its next request when
            the last one finished, whatever the rate; needs ``num_requests``. None is
            an open loop.
        num_requests: Number of requests; None takes all of ``duration_s`` or the file.
        duration_s: Arrivals in [0, duration) only; with ``num_requests`` too,
            whichever ends first.
        random_input_len: Centre of prompt lengths of dataset "random", tokens.
        random_output_len: Centre of output lengths of dataset "random", tokens.
        random_range_ratio: r of dataset "random", lengths on [L(1-r), L(1+r)].
        context_tokens: What the server's context holds: the client cuts articles of
            the datasets in ``CUT_TO_CONTEXT`` so that prompt and output fit. None
            cuts nothing.
        session_turns_mean: Mean turns of a session; 1: no sessions.
        session_turn_delay_mean_s: Mean think time between turns, s.
        num_clients: Clients that the requests are spread over.
        client_skew: Zipf exponent of their shares.
        seed: Root of every random stream.

    Raises:
        ConfigError: If a value is out of range.
    """

    dataset: str = "random"
    path: str | None = None
    request_rate: float = math.inf
    burstiness: float = 1.0
    max_concurrency: int | None = None
    num_requests: int | None = None
    duration_s: float | None = None
    random_input_len: int = 1024
    random_output_len: int = 128
    random_range_ratio: float = 0.0
    context_tokens: int | None = None
    session_turns_mean: float = 1.0
    session_turn_delay_mean_s: float = 10.0
    num_clients: int = 1
    client_skew: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._within("request_rate", limits.MIN_RATE, limits.MAX_RATE, infinite=True)
        self._within(
            "burstiness", limits.MIN_BURSTINESS, limits.MAX_BURSTINESS, infinite=True
        )
        self._within("max_concurrency", 1, limits.MAX_REQUESTS)
        self._within("num_requests", 1, limits.MAX_REQUESTS)
        self._within("duration_s", 1e-9, limits.MAX_TIME_S)
        self._within("random_input_len", 1, limits.MAX_TOKENS)
        self._within("random_output_len", 1, limits.MAX_TOKENS)
        self._within("random_range_ratio", 0, math.nextafter(1, 0))
        self._within("context_tokens", 2, limits.MAX_TOKENS)
        self._within("session_turns_mean", 1, limits.MAX_MEAN_TURNS)
        self._within("session_turn_delay_mean_s", 0, limits.MAX_THINK_S)
        self._within("num_clients", 1, limits.MAX_CLIENTS)
        self._within("client_skew", 0, 10)
        self._within("seed", 0, 2**63 - 1)

    def _within(
        self, key: str, low: float, high: float, *, infinite: bool = False
    ) -> None:
        """Refuse a value outside [low, high] (NaN too); None means not given."""
        value = getattr(self, key)
        if value is None or low <= value <= high or (infinite and value == math.inf):
            return
        also = " or inf" if infinite else ""
        raise ConfigError(f"workload.{key}: {value!r}; allowed: {low}..{high}{also}")
