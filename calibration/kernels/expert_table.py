"""Which table holds the timings of a model's experts."""

from __future__ import annotations

from calibration.kernels.dense_gemms import block_scaled
from calibration.model_shape import ModelShape
from calibration.tables import KernelTables


def expert_table(
    tables: KernelTables, model: ModelShape, dtype: str, otherwise: str
) -> str:
    """Name of the table.

    Args:
        tables: Profiled tables of the GPU.
        model: Whose experts.
        dtype: Their weight format.
        otherwise: Where none is right for the model and format: "moe", or
            "moe_untuned" (Triton without a tuned configuration).
    """
    if model.latent and _holds(tables, "moe_deepseek", dtype):
        return "moe_deepseek"
    if block_scaled(tables, model, dtype) and "moe_block" in tables.names:
        return "moe_block"
    if otherwise == "moe" and _holds(tables, "moe_fp8", dtype):
        return "moe_fp8"
    return otherwise


def _holds(tables: KernelTables, table: str, dtype: str) -> bool:
    """Whether a table exists and has rows in a weight format."""
    known = table in tables.names
    return known and bool((tables.columns(table)["dtype"] == dtype).any())
