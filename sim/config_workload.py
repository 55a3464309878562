"""The table of the configuration that says what users send."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from sim.config_fields import (
    Burstiness,
    Count,
    Name,
    OrNone,
    RangeRatio,
    Rate,
    Requests,
    Seconds,
    Sigma,
    ThinkSeconds,
    Tokens,
    Turns,
)
from sim.config_sections import Section

DEFAULT_DURATION_S: Final = 600.0


class WorkloadConfig(Section):
    """What users send; option names of vllm bench serve."""

    dataset: Name = Field(
        default="arxiv",
        description="Length statistics; a path takes their place.",
        examples=["arxiv", "sharegpt", "random"],
    )
    path: Annotated[Name | None, OrNone] = Field(
        default=None,
        description="Trace to replay, relative to the configuration file.",
        examples=["trace.csv"],
    )
    request_rate: Rate = Field(
        default=1.3,
        description="Mean requests (first turns of sessions) per second; inf sends all "
        "at once.",
    )
    max_concurrency: Annotated[Requests | None, OrNone] = Field(
        default=None,
        description="Closed loop of so many clients, whatever the rate; "
        "none is an open loop.",
    )
    burstiness: Burstiness = Field(
        default=1.0, description="Gamma shape of the gaps, 1 / CV^2; 1 is Poisson."
    )
    num_requests: Annotated[Requests | None, OrNone] = Field(
        default=None, description="The most requests to send."
    )
    duration_s: Annotated[Seconds | None, OrNone] = Field(
        default=None,
        description="Seconds of arrivals; with num_requests, whichever ends first. "
        f"{DEFAULT_DURATION_S:g} when there is neither, nor a path.",
    )
    num_clients: Count = Field(
        default=1, description="Clients that the requests are spread over, at random."
    )
    client_skew: Sigma = Field(
        default=0.0,
        description="Zipf exponent of the clients' shares of the requests; 0 is even.",
    )
    session_turns_mean: Turns = Field(
        default=1.0,
        description="Mean turns of a session, geometric. A turn's prompt is all that "
        "was said before and a prompt of the dataset; 1: every request stands alone.",
    )
    session_turn_delay_mean_s: ThinkSeconds = Field(
        default=10.0,
        description="Mean think time, exponential: seconds from the end of a turn's "
        "output to the arrival of the next turn.",
    )
    random_input_len: Tokens = Field(
        default=1024, description="Dataset random: centre of prompt lengths, tokens."
    )
    random_output_len: Tokens = Field(
        default=128, description="Dataset random: centre of output lengths, tokens."
    )
    random_range_ratio: RangeRatio = Field(
        default=0.0,
        description="Dataset random: r of lengths uniform on [L(1-r), L(1+r)].",
    )

    @property
    def horizon_s(self) -> float | None:
        """Seconds of arrivals, or None where requests or the trace end them."""
        bounded = self.num_requests is not None or self.path is not None
        if self.duration_s is not None or bounded:
            return self.duration_s
        return DEFAULT_DURATION_S
