"""Mean waits of classical queues lie in a 99 % interval around what is simulated.

Each case gives the bound that the interval's half width must keep too, as a part of
theory: an interval that is wide enough holds anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tests.sim.theory import (
    SERVICE_NS,
    erlang_c,
    poisson_ns,
    queue,
    replicated,
    simulate,
)


@dataclass(frozen=True)
class Line:
    """Poisson arrivals and gamma services of mean 1 at ``load`` erlangs per server.

    ``variance`` of the service: 0 for D, 1 for M.
    """

    servers: int
    load: float
    variance: float
    size: int
    warm_up: int
    half_width: float

    def mean_wait(self) -> float:
        """Pollaczek-Khinchine for one server, Erlang C for M/M/c."""
        if self.servers == 1:
            return self.load * (1 + self.variance) / (2 * (1 - self.load))
        assert self.variance == 1
        waits = erlang_c(self.servers, self.servers * self.load)
        return waits / (self.servers * (1 - self.load))

    def sample(self, rng: np.random.Generator) -> list[float]:
        """Mean wait of one replication; its mean gap and service as controls."""
        rate = self.servers * self.load
        arrivals = poisson_ns(rng, rate, self.size)
        services = [SERVICE_NS] * self.size
        controls = [arrivals[-1] / SERVICE_NS / self.size - 1 / rate]
        if self.variance:
            drawn = rng.gamma(
                1 / self.variance, self.variance * SERVICE_NS, self.size
            ).tolist()
            services = [max(1, round(service)) for service in drawn]
            controls.append(float(np.mean(services)) / SERVICE_NS - 1)
        records = simulate("orca", queue(arrivals, services, self.servers))
        waits = [
            (record.first_scheduled_ns or 0) - record.request.arrival_ns
            for record in records[self.warm_up :]
        ]
        return [float(np.mean(waits)) / SERVICE_NS, *controls]


def check(line: Line) -> None:
    mean, half_width = replicated(str(line), line.sample)
    theory = line.mean_wait()
    assert abs(mean - theory) < half_width < line.half_width * theory


SHORT = {"size": 1000, "warm_up": 100, "half_width": 0.2}
LONG = {"size": 15_000, "warm_up": 500, "half_width": 0.04}
LONGER = {"size": 25_000, "warm_up": 500, "half_width": 0.04}  # its waits vary more


@pytest.mark.long
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(Line(1, 0.5, 1.0, **SHORT), id="M/M/1"),  # type: ignore[arg-type]
        pytest.param(Line(1, 0.5, 0.5, **SHORT), id="M/G/1"),  # type: ignore[arg-type]
        pytest.param(Line(2, 0.6, 1.0, **SHORT), id="M/M/2"),  # type: ignore[arg-type]
    ],
)
def test_mean_wait(line: Line) -> None:
    check(line)


@pytest.mark.long
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(Line(1, 0.7, 0.0, **LONG), id="M/D/1"),  # type: ignore[arg-type]
        pytest.param(Line(1, 0.5, 1.0, **LONG), id="M/M/1"),  # type: ignore[arg-type]
        pytest.param(Line(1, 0.5, 2.0, **LONG), id="M/G/1"),  # type: ignore[arg-type]
        pytest.param(Line(3, 0.7, 1.0, **LONGER), id="M/M/3"),  # type: ignore[arg-type]
    ],
)
def test_mean_wait_in_long_runs(line: Line) -> None:
    check(line)


def test_erlang_c_gives_known_values() -> None:
    """One server: the load. Two servers at a erlangs: a^2 / (2 + a)."""
    assert erlang_c(1, 0.7) == pytest.approx(0.7)
    assert erlang_c(2, 1.2) == pytest.approx(1.2**2 / (2 + 1.2))
