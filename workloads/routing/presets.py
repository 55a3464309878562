"""Routing statistics of known models, drawn from fitted laws."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import numpy as np

from sim.config_errors import one_of
from sim.errors import ConfigError
from sim.routing_stats import Float, RoutingStats, with_margins
from workloads.routing.latent import LatentRouter, LatentSpec
from workloads.routing.markov import planted_markov
from workloads.routing.measure import measure
from workloads.routing.popularity import dirichlet_load, lognormal_load
from workloads.streams import stream

_PROFILE_TOKENS = 64
# Of a preset without topics of its own, as of OLMoE's.
_TOPIC_CORRELATION = 0.8
_TOPIC = re.compile("topic-[0-9]{1,6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Laws of a model's routing; see ``data/routing_presets.toml``.

    Attributes:
        name: Model.
        layers: MoE layers.
        experts: Experts per layer.
        top_k: Experts per token.
        alpha: Dirichlet concentration of popularity, or None.
        sigma: Lognormal spread of popularity, or None.
        latent: Whether the latent-factor router makes the transitions.
        strength: Planted affinity by number of GPUs, empty if none.
        concentration: Coherence of a prompt's tokens.
        tokens_per_iteration: Tokens behind the measured imbalance, 0 if unknown.
        measured_par: Measured max / mean rank load by EP size, contiguous experts.
        measured_par_eplb: The same with EPLB and one redundant expert per rank.
        domain_alpha: Dirichlet concentration by topic, empty if none.
        domain_correlation: Of an expert's popularity between topics.
        source: Where the figures come from.
    """

    name: str
    layers: int
    experts: int
    top_k: int
    alpha: float | None
    sigma: float | None
    latent: bool
    strength: Mapping[int, float]
    concentration: float
    tokens_per_iteration: int
    measured_par: Mapping[int, float]
    measured_par_eplb: Mapping[int, float]
    domain_alpha: Mapping[str, float]
    domain_correlation: float
    source: str

    def load(self, seed: int, domain: str | None = None) -> Float:
        """Popularity of the experts, shape (layers, experts).

        Raises:
            ConfigError: If the preset has topics and ``domain`` is not one of them.
        """
        if self.domain_alpha or domain is not None:
            if domain is None:
                loads = [self._topic_load(seed, name) for name in self.domain_alpha]
                mixed: Float = np.mean(loads, axis=0)
                return mixed
            return self._topic_load(seed, domain)
        rng = stream(seed, f"routing/{self.name}/popularity")
        if self.alpha is not None:
            return dirichlet_load(rng, self.layers, self.experts, self.alpha)
        return lognormal_load(rng, self.layers, self.experts, self.sigma or 0.0)

    def _topic_load(self, seed: int, domain: str) -> Float:
        """Dirichlet popularity whose ranks correlate between topics."""
        from scipy.special import gammaincinv, ndtr  # noqa: PLC0415  (slow to load)

        alpha = self.domain_alpha.get(domain)
        correlation = self.domain_correlation
        if alpha is None and _TOPIC.fullmatch(domain) and self.alpha is not None:
            alpha, correlation = self.alpha, _TOPIC_CORRELATION
        if alpha is None:
            names = one_of(domain, self.domain_alpha)
            raise ConfigError(f"{self.name}: domain = {domain!r}: {names}")
        shape = (self.layers, self.experts)
        common = stream(seed, f"routing/{self.name}/popularity").standard_normal(shape)
        own = stream(seed, f"routing/{self.name}/{domain}").standard_normal(shape)
        r = correlation
        ranks = ndtr(r**0.5 * common + (1.0 - r) ** 0.5 * own)
        weights: Float = np.maximum(gammaincinv(alpha, ranks), 1e-9)
        weights /= weights.sum(axis=1, keepdims=True)
        return weights

    def router(self, seed: int, domain: str | None = None) -> LatentRouter:
        """The latent-factor router with this popularity."""
        rng = stream(seed, f"routing/{self.name}/gates")
        return LatentRouter(rng, LatentSpec(top_k=self.top_k), self.load(seed, domain))

    def stats(
        self,
        seed: int = 0,
        *,
        domain: str | None = None,
        groups: int | None = None,
        tokens: int = 2048,
    ) -> RoutingStats:
        """Statistics of the model's routing.

        Popularity is the law's; transitions are those of the router, measured on
        ``tokens`` tokens and balanced to the popularity.

        Args:
            seed: Draws the model; equal seeds give equal statistics.
            domain: Topic, for presets that have them; None is their even mix.
            groups: GPUs a planted affinity was measured on; None is its first.
            tokens: Tokens of the measurement, in requests of 64.

        Raises:
            ConfigError: If there is no such topic.
        """
        load = self.load(seed, domain)
        where = domain or ""
        if self.strength:
            known = min(self.strength)
            if groups is not None and groups in self.strength:
                known = groups
            rng = stream(seed, f"routing/{self.name}/groups")
            return planted_markov(
                rng, load, known, self.strength[known], self.top_k
            ).stats
        if not self.latent:
            joint = load[:-1, :, None] * load[1:, None, :]
            return RoutingStats(load, self.top_k, joint, None, where)
        rng = stream(seed, f"routing/{self.name}/tokens/{where}")
        requests = np.full(max(tokens // _PROFILE_TOKENS, 1), _PROFILE_TOKENS)
        routed = self.router(seed, domain).route(rng, requests)
        measured = measure(routed, self.experts, domain=where)
        return balanced(measured, load)


def balanced(measured: RoutingStats, load: Float) -> RoutingStats:
    """Statistics with another popularity: transitions scaled to its margins.

    Sinkhorn scaling, the closest table with the given margins (relative entropy).
    """
    floor = 1e-12
    load = np.maximum(load, floor)
    load /= load.sum(axis=1, keepdims=True)
    joint = None
    if measured.transition is not None:
        # A thousandth of independence keeps never-seen experts possible.
        base = 0.999 * measured.transition
        base += 0.001 * (load[:-1, :, None] * load[1:, None, :])
        joint = with_margins(base, load[:-1], load[1:])
    return RoutingStats(
        load, measured.top_k, joint, measured.coactivation, measured.domain
    )


def mixed(
    parts: Mapping[str, RoutingStats], weights: Mapping[str, float]
) -> RoutingStats:
    """Statistics of a workload of several topics.

    Args:
        parts: Statistics by topic, of one model.
        weights: Share of tokens by topic; scaled to sum to 1.
    """
    total = sum(weights.values())
    share = {name: weight / total for name, weight in weights.items() if weight > 0}

    def mean(field: str) -> Any:
        arrays = [(w, getattr(parts[name], field)) for name, w in share.items()]
        if any(array is None for _, array in arrays):
            return None
        return sum(w * array for w, array in arrays)

    first = parts[next(iter(share))]
    return RoutingStats(
        mean("load"),  # never missing
        first.top_k,
        mean("transition"),
        mean("coactivation"),
        "+".join(share),
    )


def preset_names() -> tuple[str, ...]:
    """Models with a preset."""
    return tuple(_presets())


def preset(name: str) -> Preset:
    """The preset of a model; case and owner of the name do not matter.

    Raises:
        ConfigError: If there is none.
    """
    known = {key.split("/")[-1].casefold(): key for key in _presets()}
    wanted = name.rsplit("/", maxsplit=1)[-1].casefold()
    for suffix in ("-v0.1", "-instruct", "-base"):
        wanted = wanted if wanted in known else wanted.removesuffix(suffix)
    for short, key in known.items():
        if wanted in (short, short.removesuffix("-v0.1")):
            return _presets()[key]
    raise ConfigError(f"routing preset {name!r}: {one_of(name, preset_names())}")


@cache
def _presets() -> Mapping[str, Preset]:
    text = resources.files("workloads").joinpath("data/routing_presets.toml")
    document = tomllib.loads(text.read_text(encoding="utf-8"))
    return MappingProxyType({n: _parse(n, entry) for n, entry in document.items()})


def _parse(name: str, entry: Mapping[str, Any]) -> Preset:
    def by_gpus(key: str) -> dict[int, float]:
        return {int(gpus): value for gpus, value in entry.get(key, {}).items()}

    return Preset(
        name=name,
        layers=entry["layers"],
        experts=entry["experts"],
        top_k=entry["top_k"],
        alpha=entry.get("alpha"),
        sigma=entry.get("sigma"),
        latent=entry.get("latent", False),
        strength=by_gpus("lambda"),
        concentration=entry["concentration"],
        tokens_per_iteration=entry.get("tokens_per_iteration", 0),
        measured_par=by_gpus("measured_par"),
        measured_par_eplb=by_gpus("measured_par_eplb"),
        domain_alpha=entry.get("domain_alpha", {}),
        domain_correlation=entry.get("domain_correlation", 0.0),
        source=entry["source"],
    )
