"""Attention on the shipped tables, and the work/span formula beyond them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from calibration.hardware import gpu, gpu_names
from calibration.kernels.attention import (
    AttentionShape,
    DecodeAttention,
    PrefillAttention,
)
from calibration.tables import KernelTables, load_tables
from sim.errors import ConfigError
from tests.calibration.kernel_checks import (
    HEADS,
    LAYERS,
    geometric,
    never_falls,
    smoothed,
)


@pytest.fixture(scope="module")
def h100() -> KernelTables:
    return load_tables("h100_sxm")


@pytest.fixture(scope="module")
def prefill(h100: KernelTables) -> PrefillAttention:
    return PrefillAttention(h100, gpu("h100_sxm"), HEADS)


@pytest.fixture(scope="module")
def decode(h100: KernelTables) -> DecodeAttention:
    return DecodeAttention(h100, HEADS)


GPT_OSS = AttentionShape(
    num_heads=64, num_kv_heads=8, head_dim=64, window=0, kv_dtype="bfloat16"
)
WINDOWED = replace(GPT_OSS, window=128)
every_shape = pytest.mark.parametrize(
    "shape", [HEADS, GPT_OSS, WINDOWED], ids=["qwen3 tp2", "gpt-oss", "gpt-oss window"]
)


def attention_rows(
    tables: KernelTables, table: str, shape: AttentionShape
) -> dict[str, npt.NDArray[np.int64]]:
    return tables.select(
        table,
        kv_dtype=shape.kv_dtype,
        num_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        window_size=shape.window,
    )


@every_shape
def test_decode_attention_hits_the_table(
    h100: KernelTables, shape: AttentionShape
) -> None:
    """Smoothed over steps; a row attends to ``step`` past tokens and the new one.

    With a window that holds up to the longest context profiled: the kernel takes 14.3
    us for 32 rows that fill the window and 20.3 to 21.1 us for longer ones.
    """
    decode, rows = (
        DecodeAttention(h100, shape),
        attention_rows(h100, "decode_attention", shape),
    )
    assert rows["step"].size > 100
    for batch in np.unique(rows["batch_size"]).tolist():
        mine = rows["batch_size"] == batch
        expected = smoothed(rows["latency_ns"][mine])
        for step, ns in zip(rows["step"][mine].tolist(), expected, strict=True):
            timed = decode.at(batch, batch * (step + 1))
            # A window's plateau may be one number for all lengths: 5 %.
            assert timed.ns == pytest.approx(ns, rel=0.05 if shape.window else 1e-4)
            assert timed.extrapolated_ns == 0


@pytest.mark.parametrize("batch", [1, 3, 16, 100, 256, 4000])
def test_decode_attention_never_falls_with_context(
    decode: DecodeAttention, batch: int
) -> None:
    """Through the profiled range and beyond it."""
    assert never_falls(lambda n: decode.at(batch, batch * n), geometric(1, 60_000))


@pytest.mark.parametrize("context", [100, 1000, 9000, 50_000])
def test_decode_attention_never_falls_with_the_batch(
    decode: DecodeAttention, context: int
) -> None:
    """Where bytes dominate; below 100 tokens all batches cost the same but noise."""
    assert never_falls(lambda b: decode.at(b, b * context), geometric(1, 2000))


def test_decode_attention_beyond_the_table_is_flagged_and_continuous(
    decode: DecodeAttention,
) -> None:
    """The table stops at 128 rows of 8192 tokens; bytes per second are held."""
    edge, beyond = decode.at(128, 128 * 8192), decode.at(128, 128 * 8193)
    assert edge.extrapolated_ns == 0
    assert beyond.extrapolated_ns == beyond.ns
    assert beyond.ns == pytest.approx(edge.ns, rel=1e-3)
    assert decode.at(128, 128 * 16384).ns == pytest.approx(2 * edge.ns, rel=1e-3)


@pytest.mark.parametrize(
    ("batch", "published_ms"),
    [(1, 0.82), (2, 0.86), (4, 1.04), (8, 1.95), (16, 3.08), (32, 5.38), (64, 9.85)],
)
def test_decode_attention_of_a_decode_iteration(
    decode: DecodeAttention, batch: int, published_ms: float
) -> None:
    """All layers at 9194 tokens of context (arXiv prompts), within 10 %."""
    ms = LAYERS * decode.at(batch, batch * 9194).ns / 1e6
    assert ms == pytest.approx(published_ms, rel=0.10)


def test_windowed_decode_attention_does_not_grow_with_context(
    h100: KernelTables,
) -> None:
    """gpt-oss: 128 keys are read at 1000 as at 100 000 tokens of context."""
    windowed, whole = DecodeAttention(h100, WINDOWED), DecodeAttention(h100, GPT_OSS)
    for batch in (1, 32, 128):
        near, far = (windowed.at(batch, batch * n).ns for n in (1000, 100_000))
        assert far == pytest.approx(near, rel=0.1)
    assert whole.at(32, 32 * 100_000).ns > 20 * whole.at(32, 32 * 1000).ns


@every_shape
def test_prefill_attention_without_a_prefix_is_the_table(
    h100: KernelTables, shape: AttentionShape
) -> None:
    """At every profiled length, one prompt, smoothed over lengths."""
    prefill = PrefillAttention(h100, gpu("h100_sxm"), shape)
    rows = attention_rows(h100, "prefill_attention", shape)
    single = rows["batch_size"] == 1
    lengths, times = rows["isl"][single], rows["latency_ns"][single]
    assert lengths.size > 10
    for tokens, ns in zip(lengths, smoothed(times), strict=True):
        timed = prefill.at([(0, int(tokens))])
        assert timed.ns == pytest.approx(ns, abs=1)
        assert timed.extrapolated_ns == 0


def bound_ns(prefix: int, tokens: int) -> float:
    """The work/span formula, term by term (16 heads and 2 KV heads of 128)."""
    device = gpu("h100_sxm")
    fit = device.prefill
    pairs = sum(position + 1 for position in range(prefix, prefix + tokens))
    flops = 4 * 16 * 128 * pairs
    moved = 2 * (2 * tokens * 16 * 128 + 2 * (prefix + tokens) * 2 * 128)
    terms = (
        flops / (fit.peak_fraction * device.bf16_flops_per_s) * 1e9,
        fit.tau_ns_per_key * (prefix + tokens),
        moved / (fit.hbm_fraction * device.hbm_bandwidth_bytes_per_s) * 1e9,
    )
    q = fit.exponent
    return float(fit.t0_us * 1e3 + sum(term**q for term in terms) ** (1 / q))


@pytest.mark.parametrize("tokens", [16, 512, 2048, 8192])
@pytest.mark.parametrize("prefix", [1, 500, 7680, 30_000])
def test_prefix_follows_the_work_span_formula(
    prefill: PrefillAttention, prefix: int, tokens: int
) -> None:
    """Scaled by table / formula at the same length without a prefix."""
    table_ns = prefill.at([(0, tokens)]).ns
    expected = bound_ns(prefix, tokens) * table_ns / bound_ns(0, tokens)
    assert prefill.at([(prefix, tokens)]).ns == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("fixed", [1, 100, 512, 8192])
def test_prefill_attention_never_falls(prefill: PrefillAttention, fixed: int) -> None:
    """Neither with tokens after a prefix nor with the prefix of a chunk."""
    sizes = geometric(1, 40_000)
    assert never_falls(lambda n: prefill.at([(fixed, n)]), sizes)
    assert never_falls(lambda p: prefill.at([(p, fixed)]), sizes)


def test_prefix_costs_more(prefill: PrefillAttention) -> None:
    """512 tokens: the prefix of the last chunk of an 8192-token prompt shows."""
    alone, last = prefill.at([(0, 512)]).ns, prefill.at([(7680, 512)]).ns
    assert last > 2 * alone


def test_prefill_attention_beyond_the_table_is_flagged_and_continuous(
    prefill: PrefillAttention,
) -> None:
    """16384 tokens are the longest profiled; twice as many are 4 times the work."""
    edge, beyond = prefill.at([(0, 16384)]), prefill.at([(0, 16385)])
    assert edge.extrapolated_ns == 0
    assert beyond.extrapolated_ns == beyond.ns
    assert beyond.ns == pytest.approx(edge.ns, rel=1e-3)
    assert 3.4 * edge.ns < prefill.at([(0, 32768)]).ns < 4.2 * edge.ns


def test_prompts_in_one_kernel_share_its_fixed_time(prefill: PrefillAttention) -> None:
    """More than either, less than both one after the other, in any order."""
    chunks = [(0, 512), (3000, 900)]
    apart = [prefill.at([chunk]).ns for chunk in chunks]
    together = prefill.at(chunks).ns
    assert max(apart) < together < sum(apart)
    assert prefill.at(chunks[::-1]).ns == pytest.approx(together, abs=1)


@pytest.mark.parametrize(("chunk", "published_ms"), [(512, 50.8), (8192, 23.9)])
def test_prefill_attention_of_one_prompt(
    prefill: PrefillAttention, chunk: int, published_ms: float
) -> None:
    """8192 tokens in chunks through all layers (work/span), within 10 %."""
    starts = range(0, 8192, chunk)
    ms = LAYERS * sum(prefill.at([(start, chunk)]).ns for start in starts) / 1e6
    assert ms == pytest.approx(published_ms, rel=0.10)


MANY = AttentionShape(
    num_heads=32, num_kv_heads=32, head_dim=128, window=0, kv_dtype="bfloat16"
)
FEWER = replace(MANY, num_heads=8, num_kv_heads=8)
BATCHES, CONTEXTS = (1, 4, 16, 32), (1024, 4096, 16_384)
BOTH = [(gpu, "sglang") for gpu in gpu_names()]
BOTH += [(gpu, "trtllm") for gpu in ("h100_sxm", "h200_sxm", "b200_sxm")]


@pytest.mark.parametrize(("gpu_name", "framework"), BOTH)
def test_heads_count_as_requests_do(gpu_name: str, framework: str) -> None:
    """Where both are profiled: 32 KV heads of a batch, 8 of four times the batch."""
    tables = load_tables(gpu_name, framework=framework)
    many, fewer = DecodeAttention(tables, MANY), DecodeAttention(tables, FEWER)
    errors = [
        fewer.at(4 * batch, 4 * batch * context).ns / many.at(batch, batch * context).ns
        for batch in BATCHES
        for context in CONTEXTS
    ]
    assert np.abs(np.array(errors) - 1).mean() < 0.09
    assert np.median(errors) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("gpu_name", gpu_names())
def test_more_kv_heads_than_were_profiled(gpu_name: str) -> None:
    """vLLM's decode tables end at 8: the rest are reckoned by the same law, exactly."""
    tables = load_tables(gpu_name)
    assert not attention_rows(tables, "decode_attention", MANY)["step"].size
    many, fewer = DecodeAttention(tables, MANY), DecodeAttention(tables, FEWER)
    for batch in BATCHES:
        for context in CONTEXTS:
            alike = fewer.at(4 * batch, 4 * batch * context)
            assert many.at(batch, batch * context).ns == pytest.approx(alike.ns, abs=1)
    assert many.work(2, 1000).hbm_bytes == 4 * fewer.work(2, 1000).hbm_bytes


def test_other_numbers_of_kv_heads_are_refused(h100: KernelTables) -> None:
    for kv_heads in (3, 40, 128):
        shape = replace(MANY, num_heads=kv_heads, num_kv_heads=kv_heads)
        with pytest.raises(ConfigError, match=f"for {kv_heads} KV heads of 128"):
            DecodeAttention(h100, shape)
