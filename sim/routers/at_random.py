"""Any replica, drawn at random."""

from __future__ import annotations

from sim.routers.draws import Draws
from sim.routers.router import Loads


class AtRandom:
    """Every replica as likely as any other, whatever its load.

    What a Kubernetes service does with each new connection: kube-proxy's rules pick a
    backend at random ("Virtual IPs and Service Proxies", iptables proxy mode). Poisson
    arrivals are split into independent Poisson streams.
    """

    def __init__(self, seed: int = 0) -> None:
        self._draws = Draws(seed)

    def route(self, loads: Loads) -> int:
        """Index of the replica."""
        choices = loads.choices
        return choices[self._draws.below(len(choices))]
