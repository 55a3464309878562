"""Which profiled GEMMs run a model's dense products."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.kernels.gemm import Gemms
from calibration.model_shape import ModelShape
from calibration.tables import KernelTables


@dataclass(frozen=True, slots=True)
class DenseGemms:
    """Matrix products of a model's dense weights, and where their times come from.

    Attributes:
        gemms: Times.
        tables: The tables they are of; not always the engine's own.
    """

    gemms: Gemms
    tables: KernelTables


def block_scaled(tables: KernelTables, model: ModelShape, dtype: str) -> bool:
    """Whether block-scaled fp8 kernels run; SGLang's fp8 experts always are."""
    return dtype == "fp8" and model.fp8_block and "gemm_block" in tables.names


def dense_gemms(
    tables: KernelTables, model: ModelShape, dtype: str, *, launched: bool = False
) -> DenseGemms:
    """The GEMMs of a model in a weight format.

    Args:
        tables: Profiled tables of the GPU.
        model: Whose products.
        dtype: Its weight format.
        launched: Block-scaled ones take as long as in vLLM's own table, launches from
            Python included; see :func:`graph_timed_fp8`. Not with latent attention.

    Raises:
        ConfigError: If this format was not profiled on the GPU.
    """
    dense = "fp8" if dtype == "fp8" else "bfloat16"
    block = block_scaled(tables, model, dtype)
    if dense == "fp8" and (model.latent or (block and not launched)):
        return graph_timed_fp8(tables)
    return DenseGemms(Gemms(tables, dense, block=block), tables)


def graph_timed_fp8(tables: KernelTables) -> DenseGemms:
    """Block-scaled fp8 GEMMs as a CUDA graph replays them.

    vLLM's public table launches each of them from Python (aiconfigurator,
    ``collector/vllm/collect_gemm.py``: a graph for every format but fp8_block), so that
    below about 2000 rows it holds launch times, 60 us on H100 and 390 us on GB200:
    several times a whole latent-attention module of four such products. SGLang's table
    times the same library, DeepGEMM, in a graph. Without it, per-tensor fp8 does.

    Raises:
        ConfigError: If no fp8 GEMM was profiled on the GPU.
    """
    source = tables if tables.framework != "vllm" else tables.beside("sglang")
    if source is not None and "gemm_block" in source.names:
        return DenseGemms(Gemms(source, "fp8", block=True), source)
    return DenseGemms(Gemms(tables, "fp8"), tables)
