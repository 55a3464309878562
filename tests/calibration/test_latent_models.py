"""Models with latent attention: sizes against published figures and hand counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from calibration.hardware import gpu
from calibration.hf_config import parse_hf_config
from calibration.kernels.layer_parts import (
    attention_products,
    elementwise,
    ffn_products,
)
from calibration.kernels.model_kernels import Deployment
from calibration.memory import kv_cache_tokens
from calibration.model_shape import ModelShape
from calibration.model_work import model_work
from calibration.models import model
from sim.errors import ConfigError
from sim.model_work import ModelWork

R1 = model("deepseek-ai/DeepSeek-R1")
SERVED = Deployment(model=R1, dtype="fp8", kv_dtype="bfloat16", tp=8, ep=1)
NAMES = ("deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1")

# config.json of deepseek-ai/DeepSeek-V2-Lite: queries without a latent of their own.
V2_LITE: dict[str, Any] = {
    "model_type": "deepseek_v2",
    "hidden_act": "silu",
    "num_hidden_layers": 27,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "intermediate_size": 10944,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "moe_intermediate_size": 1408,
    "topk_method": "greedy",
    "vocab_size": 102400,
    "max_position_embeddings": 163840,
    "attention_bias": False,
}


def lite(**changes: object) -> ModelShape:
    return parse_hf_config({**V2_LITE, **changes}, "V2-Lite", "config.json")


@pytest.mark.parametrize("name", NAMES)
def test_671_billion_parameters_of_which_37_are_active(name: str) -> None:
    """The two figures of the model card, the first to the last parameter.

    Active are all parameters but 248 of 256 experts, and the embedding, of which a
    token reads one row.
    """
    shape = model(name)
    params = shape.params()
    assert params.total == 671_026_419_200
    active = params.total - params.expert * 248 // 256 - params.embedding
    assert active / 1e9 == pytest.approx(37, abs=0.5)
    assert shape.native_dtype == "fp8"
    assert shape.fp8_block


def test_parameters_by_component() -> None:
    """Counted by hand from config.json."""
    params = R1.params()
    down = 7168 * (1536 + 512 + 64)
    heads = 1536 * 128 * 192 + 512 * 128 * 256 + 128 * 128 * 7168
    assert params.attention == 61 * (down + heads + 1536 + 512)
    assert params.dense_ffn == 3 * 3 * 7168 * 18432
    assert params.expert == 58 * 256 * 3 * 7168 * 2048
    assert params.shared_expert == 58 * 3 * 7168 * 2048
    assert params.router == 58 * (7168 * 256 + 256)
    assert params.embedding == params.lm_head == 129_280 * 7168
    assert params.norm == (2 * 61 + 1) * 7168


def test_v2_lite_has_16_billion_parameters() -> None:
    """15.7 B published (arXiv 2405.04434, appendix B): 2.4 B active with embeddings."""
    params = lite().params()
    assert params.total == 15_706_484_224
    active = params.total - params.expert * 58 // 64 - params.embedding
    assert active / 1e9 == pytest.approx(2.4, abs=0.1)
    assert lite().num_moe_layers == 26


@pytest.mark.parametrize("name", NAMES)
def test_the_cache_holds_one_latent_per_token_and_layer(name: str) -> None:
    """61 layers of 512 + 64 elements, however many heads: 70,272 bytes."""
    shape = model(name)
    assert shape.kv_bytes_per_token("bfloat16") == 70_272
    assert shape.kv_bytes_per_token("fp8") == 35_136


def test_what_is_kept_from_a_config() -> None:
    """Extra prediction layers run in speculative decoding only, and are not counted."""
    assert R1.dense_layers == (0, 1, 2)
    assert R1.shared_intermediate_size == 2048
    assert lite().shared_intermediate_size == 2 * 1408
    assert lite(num_nextn_predict_layers=1).params() == lite().params()
    biased = lite(topk_method="noaux_tc").params().router - lite().params().router
    assert biased == 26 * 64


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"attention_bias": True}, "attention_bias = true: biases in latent"),
        ({"v_head_dim": None}, "v_head_dim = .*: must be an integer"),
        ({"q_lora_rank": -1}, "q_lora_rank = -1: must be an integer from 0"),
        ({"moe_layer_freq": 2}, "moe_layer_freq = 2: dense layers between"),
        ({"first_k_dense_replace": 27}, "first_k_dense_replace = 27: .*from 0 to 26"),
        ({"index_topk": 2048}, "index_topk = 2048: sparse attention by an indexer"),
        (
            {
                "quantization_config": {
                    "quant_method": "fp8",
                    "modules_to_not_convert": ["self_attn"],
                }
            },
            "latent attention kept in bfloat16 cannot be simulated",
        ),
    ],
)
def test_what_cannot_be_costed_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        lite(**change)


def served() -> ModelWork:
    return model_work(SERVED, lambda _: 0, absorbed_chunk_tokens=512)


def test_kinds_of_layers() -> None:
    """58 layers with experts after three dense ones, each in one kind."""
    rest, dense = served().kinds
    assert (rest.leading, dense.leading) == (False, True)
    assert dense.before == (0, 1, 2, 3, *[3] * 58)
    assert rest.before == (0, 0, 0, 0, *range(1, 59))


def test_flops_of_one_layer_by_hand() -> None:
    """Twice the weights a row meets; eight experts and the shared one of 256 + 1."""
    rest, dense = served().kinds
    attention = 187_105_280 + 2048
    expert = 3 * 7168 * 2048
    assert rest.row_flops == 2 * (attention + 7168 * 256 + 256 + 9 * expert)
    assert dense.row_flops == 2 * (attention + 3 * 7168 * 18432)


def test_attention_flops_by_hand() -> None:
    """128 heads: 192 + 128 wide expanded, 576 + 512 wide over latents.

    Of a prefix, every latent is expanded again: 512 x 256 per head.
    """
    work = served()
    pairs = 1000 * 600 + 600 * 601 // 2
    expected = pairs * 128 * 2 * 320 + 1000 * 128 * 2 * 512 * 256
    assert work.prefill_flops(1000, 600, 0) == expected
    pairs = 1000 * 512 + 512 * 513 // 2
    assert work.prefill_flops(1000, 512, 0) == pairs * 128 * 2 * 1088
    assert work.decode_pair_flops == 128 * 2 * 1088


def test_bytes_of_one_layer_by_hand() -> None:
    """fp8 but for norms and router; projections to latents and router on 8 GPUs."""
    rest, dense = served().kinds
    down, matrices = 7168 * 2112, 187_105_280
    attention = matrices + 7 * down + 2 * 2048
    router = 2 * (7168 * 256 + 256)
    assert rest.weight_bytes == attention + 8 * router + 3 * 7168 * 2048
    assert dense.weight_bytes == attention + 3 * 7168 * 18432
    work = served()
    assert work.expert_bytes == 3 * 7168 * 2048
    # Every GPU keeps and reads the whole latent.
    assert work.kv_bytes == 8 * 576 * 2
    # Keys and values of 128 heads, written and read in bfloat16; none if absorbed.
    assert work.expanded_bytes(1000, 600) == 1600 * 2 * 128 * 320 * 2
    assert work.expanded_bytes(1000, 512) == 0


def test_products_of_one_layer_on_one_of_eight_gpus() -> None:
    """16 heads; latents and router whole, dense FFN and shared expert split."""
    attention = ((2112, 7168), (16 * 192, 1536), (7168, 16 * 128))
    assert attention_products(R1, 8) == attention
    rest = ((256, 7168), (2 * 256, 7168), (7168, 256))
    assert ffn_products(R1, 8, leading=False) == rest
    assert ffn_products(R1, 8, leading=True) == ((2 * 2304, 7168), (7168, 2304))
    direct = ((8 * 192, 2048), (576, 2048), (2048, 8 * 128))
    assert attention_products(lite(), 2) == direct


def test_small_kernels_of_one_layer() -> None:
    """Two norms and an activation; the shared expert's sum; attention's own three."""
    norms, act = 2 * 4 * 7168 * 2, 3 * 256 * 2
    inside = elementwise(R1, 8, leading=False, inside=True)
    assert inside == (4, norms + act + 3 * 7168 * 2)
    dense = elementwise(R1, 8, leading=True, inside=True)
    assert dense == (3, norms + 3 * 2304 * 2)
    bare = elementwise(R1, 8, leading=True, inside=False)
    assert bare[0] - dense[0] == 3
    assert bare[1] - dense[1] == 2 * (1536 + 512 + 17 * 64) * 2


def test_kv_cache_beside_deepseek_r1_on_eight_h200() -> None:
    """By hand: 0.9 of 141 GiB, less 411,041,792 and 3.5 GiB, less weights.

    Weights: an eighth of 672,987,229,184 bytes, 7 / 8 of the projections to latents and
    bfloat16 copies of the expansion of 16 heads in 61 layers. The cache is not split.
    """
    usable = int(151_397_597_184 * 0.9) - 411_041_792 - 3_758_096_384
    extra = 61 * (7168 * 2112 * 7 // 8 + 512 * 16 * 256 * 2)
    free = usable - 672_987_229_184 // 8 - extra
    assert kv_cache_tokens(gpu("h200_sxm"), SERVED, 0.9) == free // 70_272


def test_deepseek_r1_does_not_fit_eight_h100() -> None:
    """84 GB of weights each on 80 GiB GPUs."""
    with pytest.raises(ConfigError, match=r"fit in memory: 681\.5 GB of fp8"):
        kv_cache_tokens(gpu("h100_sxm"), SERVED, 0.9)
    bf16 = replace(SERVED, dtype="bfloat16")
    with pytest.raises(ConfigError, match="does not fit in memory"):
        kv_cache_tokens(gpu("h200_sxm"), bf16, 0.95)
