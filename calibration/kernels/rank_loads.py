"""What a placement makes of routing, and the sizes that turn it into bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Communication = Literal["tp_allreduce", "ep_home", "context_coherent"]
BFLOAT16_BYTES = 2
# DeepEP dispatches fp8 with one 4-byte scale per 128 values.
DISPATCH_BYTES = {"bfloat16": 2.0, "fp8": 1.0 + 4 / 128}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankLoads:
    """What a placement does to routing, per layer.

    Attributes:
        shares: Share of an expert's tokens on each rank, (L, E, G).
        load: Share of pairs per rank, (L, G).
        needed: Probability that a token needs a rank, (L, G).
        node_needed: The same for a node, (L, N).
        stays: Expected experts of a token's next layer on its rank, (L,); of the
            first layer by chance.
        stays_in_node: The same for its node.
    """

    shares: Float
    load: Float
    needed: Float
    node_needed: Float
    stays: Float
    stays_in_node: Float


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeShape:
    """Sizes the messages and weights depend on."""

    hidden_size: int
    top_k: int
    expert_bytes: float
    dispatch_dtype: str = "bfloat16"

    @property
    def dispatch_bytes(self) -> float:
        """Bytes of a token on its way to an expert."""
        return self.hidden_size * DISPATCH_BYTES[self.dispatch_dtype]

    @property
    def combine_bytes(self) -> float:
        """Bytes of a token on its way back."""
        return float(self.hidden_size * BFLOAT16_BYTES)


class Copies(NamedTuple):
    """Copies of each of all tokens, per layer.

    Attributes:
        near: That the busiest rank moves inside its node.
        far: That it moves over its NIC.
        total: That all ranks move.
    """

    near: Float
    far: Float
    total: Float


def copies(
    loads: RankLoads, ranks: int, communication: Communication
) -> tuple[Copies, Copies]:
    """Copies on the way out and back, each rank or node once per token."""
    nodes = loads.node_needed.shape[1]
    distinct, by_node = loads.needed.sum(axis=1), loads.node_needed.sum(axis=1)
    skew = np.maximum(loads.needed.max(axis=1) * ranks / distinct, 1.0)
    if communication == "ep_home":
        # Homes are spread evenly: a needed rank is another one but 1 time in G.
        remote, over_nic = distinct * (1 - 1 / ranks), by_node * (1 - 1 / nodes)
        both = _busiest(remote, over_nic, skew, ranks)
        return both, both
    at_home = np.minimum(loads.stays, 1.0)
    in_node = np.minimum(loads.stays_in_node, 1.0)
    out = _busiest(distinct - at_home, by_node - in_node, skew, ranks)
    back = _busiest(distinct - 1.0, by_node - 1.0, skew, ranks)
    return out, back


def _busiest(remote: Float, over_nic: Float, skew: Float, ranks: int) -> Copies:
    """A token crosses to a node once; ranks there pass it on over NVLink."""
    remote = np.maximum(remote, 0.0)
    over_nic = np.clip(over_nic, 0.0, remote)
    return Copies(remote * skew / ranks, over_nic * skew / ranks, remote)
