"""Fit the work/span parameters of prefill attention; run when the packs change.

    python -m calibration.fit_prefill_span

Prints the values that ``data/gpus.toml`` holds and marks
``ours``. Where all five parameters of a GPU were published (H100), nothing is fitted;
where four were, they are held and the bandwidth fraction is fitted alone; else all five
are. Rows: the GPU's own vLLM prefill attention without prefix, bfloat16, head_dim 128,
full attention.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares, minimize_scalar

from calibration.hardware import Gpu, PrefillSpan, gpu
from calibration.tables import load_tables

Float = npt.NDArray[np.float64]

BANDWIDTH_ONLY = ("h200_sxm", "a100_sxm", "b200_sxm", "rtx_pro_6000")
ALL_FIVE = ("l40s", "gb200")
_MOST_KV_HEADS = 8
_START = PrefillSpan(10.0, 0.6, 15.0, 1.3, 0.3)
_DIGITS = PrefillSpan(1, 2, 1, 2, 2)


class SpanRows:
    """The rows a fit sees, and the errors of a set of parameters on them.

    Those of up to 8 KV heads, as models with grouped queries have on a GPU.

    Args:
        device: the GPU.
    """

    def __init__(self, device: Gpu) -> None:
        rows = load_tables(device.name).select(
            "prefill_attention", kv_dtype="bfloat16", head_dim=128, window_size=0
        )
        grouped = rows["num_key_value_heads"] <= _MOST_KV_HEADS
        rows = {key: column[grouped] for key, column in rows.items()}
        batch, tokens, heads = rows["batch_size"], rows["isl"], rows["num_heads"]
        pairs = batch * (tokens * (tokens + 1) // 2)
        width = 2 * 128 * 2 * (heads + rows["num_key_value_heads"])
        self._work_s = 4 * 128 * heads * pairs / device.flops("bfloat16")
        self._tokens = tokens.astype(np.float64)
        self._bytes_s = batch * tokens * width / device.hbm_bandwidth_bytes_per_s
        self._measured_s = rows["latency_ns"] * 1e-9

    def relative(self, span: PrefillSpan) -> Float:
        """Predicted over measured time, per row."""
        q = span.exponent
        bound: Float = (
            (self._work_s / span.peak_fraction) ** q
            + (self._tokens * span.tau_ns_per_key * 1e-9) ** q
            + (self._bytes_s / span.hbm_fraction) ** q
        ) ** (1 / q)
        ratio: Float = (span.t0_us * 1e-6 + bound) / self._measured_s
        return ratio

    def error(self, span: PrefillSpan) -> float:
        """Mean absolute relative error."""
        return float(np.abs(self.relative(span) - 1).mean())


def fit(name: str) -> tuple[PrefillSpan, float]:
    """The parameters of a GPU, rounded as they are stored, and their mean error."""
    device = gpu(name)
    rows = SpanRows(device)
    fitted = _bandwidth(rows, device.prefill) if name in BANDWIDTH_ONLY else _all(rows)
    return fitted, rows.error(fitted)


def _bandwidth(rows: SpanRows, held: PrefillSpan) -> PrefillSpan:
    found = minimize_scalar(
        lambda fraction: rows.error(replace(held, hbm_fraction=float(fraction))),
        bounds=(0.05, 0.95),
        method="bounded",
    )
    return replace(held, hbm_fraction=round(float(found.x), 2))


def _all(rows: SpanRows) -> PrefillSpan:
    found = least_squares(
        lambda values: np.log(rows.relative(PrefillSpan(*values))),
        x0=_values(_START),
        bounds=([1.0, 0.1, 0.5, 1.0, 0.05], [40.0, 0.95, 100.0, 4.0, 0.95]),
        loss="soft_l1",
        f_scale=0.05,
        x_scale=_values(_START),
    )
    digits = (int(places) for places in _values(_DIGITS))
    pairs = zip(found.x, digits, strict=True)
    return PrefillSpan(*(round(float(value), places) for value, places in pairs))


def _values(span: PrefillSpan) -> list[float]:
    return [float(getattr(span, name)) for name in PrefillSpan.__dataclass_fields__]


def main() -> None:
    """Print every fit beside its mean error."""
    for name in (*BANDWIDTH_ONLY, *ALL_FIVE):
        fitted, error = fit(name)
        sys.stdout.write(f"{name}: {fitted}, mean error {error:.1%}\n")


if __name__ == "__main__":
    main()
