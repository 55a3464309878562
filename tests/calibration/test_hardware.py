"""The hardware catalogue: published figures, aliases, what-if scaling."""

from __future__ import annotations

import math
import pickle
from dataclasses import astuple

import numpy as np
import pytest

from calibration.hardware import gpu, gpu_names
from calibration.tables import load_tables
from sim.errors import ConfigError


def test_the_catalogue_holds_the_profiled_gpus() -> None:
    hopper_and_older = {"h100_sxm", "h200_sxm", "a100_sxm", "l40s"}
    assert set(gpu_names()) == hopper_and_older | {"b200_sxm", "gb200", "rtx_pro_6000"}
    for name in gpu_names():
        assert load_tables(name).gpu == gpu(name).name == name


@pytest.mark.parametrize(
    ("name", "gib", "tb_per_s", "tflops", "gb_per_s", "watts"),
    [
        ("h100_sxm", 80, 3.35, 989, 450, 700),
        ("h200_sxm", 141, 4.8, 989, 450, 700),
        ("a100_sxm", 80, 2.039, 312, 300, 400),
        ("b200_sxm", 180, 7.7, 2250, 900, 1000),
    ],
)
def test_published_figures(
    name: str, gib: int, tb_per_s: float, tflops: int, gb_per_s: int, watts: int
) -> None:
    """Capacity, bandwidth, bf16 peak, NVLink one way and TDP of the data sheets."""
    found = gpu(name)
    assert found.hbm_bytes == gib * 2**30
    assert found.hbm_bandwidth_bytes_per_s == pytest.approx(tb_per_s * 1e12)
    assert found.flops("bfloat16") == found.flops("mxfp4") == tflops * 1e12
    assert found.nvlink_bandwidth_bytes_per_s == gb_per_s * 1e9
    assert found.power.cap_w == watts
    assert found.gpus_per_node == 8


@pytest.mark.parametrize("name", ["h100", "H100", "H100-SXM", " h100_sxm ", "h100 sxm"])
def test_aliases(name: str) -> None:
    assert gpu(name) is gpu("h100_sxm")


@pytest.mark.parametrize(
    ("name", "mib", "tb_per_s", "tflops", "gb_per_s", "watts", "per_node"),
    [
        ("gb200", 189_471, 8.0, 2500, 900, 1200, 4),
        ("rtx_pro_6000", 97_887, 1.792, 467.8, 64, 600, 8),
        ("l40s", 46_068, 0.864, 362.05, 32, 350, 8),
    ],
)
def test_figures_of_the_source(
    name: str,
    mib: int,
    tb_per_s: float,
    tflops: float,
    gb_per_s: int,
    watts: int,
    per_node: int,
) -> None:
    """As aiconfigurator's system files have them; PCIe links in place of NVLink."""
    found = gpu(name)
    assert abs(found.hbm_bytes - mib * 2**20) < 2**20
    assert found.hbm_bandwidth_bytes_per_s == pytest.approx(tb_per_s * 1e12)
    assert found.flops("bfloat16") == pytest.approx(tflops * 1e12)
    assert found.nvlink_bandwidth_bytes_per_s == gb_per_s * 1e9
    assert (found.power.cap_w, found.gpus_per_node) == (watts, per_node)


def test_power_of_unmeasured_gpus_is_that_of_the_nearest_one_by_tdp() -> None:
    """And says so: confidence "none"."""
    for name, nearest in (("l40s", "h100_sxm"), ("rtx_pro_6000", "b200_sxm")):
        power, known = gpu(name).power, gpu(nearest).power
        ratio = power.cap_w / known.cap_w
        assert power.confidence == "none"
        for watts in ("gap_w", "bf16_run_w", "fp8_run_w", "four_bit_run_w"):
            scaled = ratio * getattr(known, watts)
            assert getattr(power, watts) == pytest.approx(scaled, rel=1e-3)
        assert power.hbm_pj_per_byte == known.hbm_pj_per_byte
    words = {gpu(name).power.confidence for name in gpu_names()}
    assert words == {"high", "medium", "low", "none"}


def test_unknown_gpu() -> None:
    with pytest.raises(
        ConfigError, match=r'"h101" .*"h100_sxm"\?\); allowed: a100_sxm'
    ):
        gpu("h101")


def test_fp8_doubles_the_peak_where_it_exists() -> None:
    for name in ("h100_sxm", "h200_sxm", "b200_sxm"):
        assert gpu(name).flops("fp8") == 2 * gpu(name).flops("bfloat16")
        assert gpu(name).power.flop_pj("fp8") < gpu(name).power.flop_pj("bfloat16")
    for ask in (gpu("a100").flops, gpu("a100").power.run_w, gpu("a100").power.flop_pj):
        with pytest.raises(ConfigError, match=r'"fp8".*allowed: bfloat16, mxfp4'):
            ask("fp8")


def test_power_parameters_are_ordered() -> None:
    """Idle without a process <= idle with one <= TDP; H100 as fitted."""
    for name in gpu_names():
        power = gpu(name).power
        assert 0 < power.idle_bare_w <= power.idle_context_w
        assert max(power.gap_w, power.run_w("bfloat16")) < power.cap_w
    power = gpu("h100").power
    runs = [power.run_w(dtype) for dtype in ("bfloat16", "fp8", "mxfp4")]
    assert runs == [331, 378, 443]
    assert (power.hbm_pj_per_byte, power.flop_pj("fp8")) == (56, 0.52)


def test_reserved_memory_grows_with_the_group() -> None:
    other = 3.5 * 2**30
    h100 = gpu("h100")
    assert h100.reserved_bytes(1) == other
    assert h100.reserved_bytes(2) == other + 342 * 2**20
    assert h100.reserved_bytes(3) == h100.reserved_bytes(4) == other + 392 * 2**20
    assert h100.reserved_bytes(64) == h100.reserved_bytes(8)


def test_scaling_changes_the_rates_and_nothing_else() -> None:
    base = gpu("h100")
    fast = base.scaled(hbm_bandwidth_scale=1.5, flops_scale=2, link_bandwidth_scale=0.5)
    assert fast.hbm_bandwidth_bytes_per_s == 1.5 * base.hbm_bandwidth_bytes_per_s
    assert fast.flops("bfloat16") == fast.flops("mxfp4") == 2 * base.flops("bfloat16")
    assert fast.flops("fp8") == 2 * base.flops("fp8")
    assert fast.nvlink_bandwidth_bytes_per_s == base.nvlink_bandwidth_bytes_per_s / 2
    assert (fast.hbm_bytes, fast.power) == (base.hbm_bytes, base.power)
    assert fast.scaled(1 / 1.5, 0.5, 2) == base == base.scaled()
    assert gpu("a100").scaled(flops_scale=2).fp8_flops_per_s is None


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_an_absurd_scale_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match=r"hbm_bandwidth_scale = .*finite number > 0"):
        gpu("h100").scaled(hbm_bandwidth_scale=scale)


def test_a_gpu_travels_between_processes() -> None:
    assert pickle.loads(pickle.dumps(gpu("b200"))) == gpu("b200")  # noqa: S301
    assert hash(gpu("b200")) == hash(gpu("b200"))


@pytest.mark.parametrize("name", gpu_names())
def test_work_span_formula_fits_the_packed_rows(name: str) -> None:
    """Mean error on no-prefix rows at most 14 %, bias below 10 %.

    Of up to 8 KV heads, which the parameters are fitted to.
    """
    device, span = gpu(name), gpu(name).prefill
    rows = load_tables(name).select(
        "prefill_attention", kv_dtype="bfloat16", head_dim=128, window_size=0
    )
    grouped = rows["num_key_value_heads"] <= 8
    rows = {key: column[grouped] for key, column in rows.items()}
    batch, tokens, heads = rows["batch_size"], rows["isl"], rows["num_heads"]
    flops = 4 * 128 * heads * batch * (tokens * (tokens + 1) // 2)
    moved = 2 * 128 * batch * tokens * 2 * (heads + rows["num_key_value_heads"])
    terms_s = (
        flops / (span.peak_fraction * device.flops("bfloat16")),
        tokens * span.tau_ns_per_key * 1e-9,
        moved / (span.hbm_fraction * device.hbm_bandwidth_bytes_per_s),
    )
    q = span.exponent
    predicted_s = span.t0_us * 1e-6 + sum(t**q for t in terms_s) ** (1 / q)
    error = predicted_s / (rows["latency_ns"] * 1e-9) - 1
    assert np.abs(error).mean() < 0.145
    assert abs(np.median(error)) < 0.10


def test_span_parameters_marked_ours_are_those_of_the_fit() -> None:
    """Fitted again from the packed rows."""
    fits = pytest.importorskip("calibration.fit_prefill_span", exc_type=ImportError)
    for name in (*fits.BANDWIDTH_ONLY, *fits.ALL_FIVE):
        fitted, error = fits.fit(name)
        stored = gpu(name).prefill
        assert astuple(fitted) == pytest.approx(astuple(stored), rel=0.03), name
        assert error < 0.145
