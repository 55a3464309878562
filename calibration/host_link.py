"""KV blocks of a model over the link between a GPU and its host."""

from __future__ import annotations

from calibration.hardware import Gpu
from calibration.interconnect import host_copies
from calibration.kernels.model_kernels import Deployment
from calibration.memory import token_bytes_per_gpu
from sim.host_link import HostLink


def host_link(device: Gpu, deployment: Deployment, block_size: int) -> HostLink | None:
    """The link of a replica; None where nothing is known of the GPU's.

    A block lies in pieces: keys and values of every layer, or its latents. vLLM V0
    copies each with a ``cudaMemcpyAsync`` of its own (``swap_blocks`` in
    ``cache_kernels.cu``), on one stream, so that a piece takes the longer of its
    submission and its bytes over the bandwidth.

    Args:
        device: The GPU.
        deployment: The model and its split, on one stage.
        block_size: Tokens in a KV block.
    """
    copies = host_copies(device)
    if copies is None:
        return None
    copy_ns, bytes_per_s = copies
    (stage,) = deployment.stages
    pieces = stage.layers * (1 if deployment.model.latent else 2)
    gpu_bytes = block_size * token_bytes_per_gpu(deployment, stage)
    return HostLink(
        block_ns=round(max(pieces * copy_ns, gpu_bytes * 1e9 / bytes_per_s)),
        block_bytes=round(gpu_bytes * deployment.tp),
    )
