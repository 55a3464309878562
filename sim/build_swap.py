"""From a configuration to the host pool that preempted KV blocks go to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from calibration.host_link import host_link
from sim.build import Machine
from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.config_sections import SWAP_SPACE_GIB
from sim.config_swap import SWAP
from sim.host_link import HostLink

_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class SwapSpace:
    """Host memory of a replica.

    Attributes:
        blocks: KV blocks that it holds.
        link: Carries them.
    """

    blocks: int
    link: HostLink


def swap_space(config: Config, machine: Machine) -> SwapSpace | None:
    """The host pool of a configuration; None where preemption recomputes.

    Raises:
        ConfigKeyError: If it holds no KV block, or nothing is known of the GPU's link
            to its host.
    """
    engine = config.engine
    if engine.preemption_mode != SWAP:
        return None
    link = host_link(machine.gpu, machine.deployment, engine.block_size)
    if link is None:
        raise ConfigKeyError(
            "engine.preemption_mode",
            SWAP,
            f'must be "recompute" on {machine.gpu.name}, of whose link to the host no'
            " bandwidth is known",
            ("cluster.gpu",),
        )
    gib = SWAP_SPACE_GIB if engine.swap_space is None else engine.swap_space
    gpus = machine.deployment.tp
    blocks = int(gib * gpus * _GIB / link.block_bytes)
    if not blocks:
        raise ConfigKeyError(
            "engine.swap_space",
            gib,
            f"must hold a KV block: >= {link.block_bytes / gpus / _GIB:.3g} GiB per GPU"
            f" for {engine.block_size} tokens of {machine.model.name}",
        )
    return SwapSpace(blocks, link)
