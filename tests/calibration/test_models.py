"""The model catalogue: parameter counts, bytes and KV against published figures."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.models import model, model_names
from calibration.tables import DATA_DIR
from sim.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen3-30B-A3B", 30_532_122_624),
        ("Qwen/Qwen3-235B-A22B", 235_093_634_560),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-32B", 32_762_123_264),
        ("mistralai/Mixtral-8x7B-v0.1", 46_702_792_704),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("meta-llama/Llama-3.1-70B", 70_553_706_496),
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-4B", 4_022_468_096),
        ("Qwen/Qwen3-14B", 14_768_307_200),
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct", 480_154_875_392),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen2.5-32B", 32_763_876_352),
        ("Qwen/Qwen2.5-72B", 72_706_203_648),
        ("meta-llama/Llama-3.1-405B", 405_853_388_800),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        # Without their vision encoders.
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 107_769_861_120),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 400_711_848_960),
        ("meta-llama/Llama-2-70b-hf", 68_976_648_192),
        ("mistralai/Mistral-7B-v0.3", 7_248_023_552),
        ("mistralai/Mixtral-8x22B-v0.1", 140_620_634_112),
        ("openai/gpt-oss-20b", 20_914_757_184),
        ("openai/gpt-oss-120b", 116_829_156_672),
    ],
)
def test_total_parameters_are_the_published_ones(name: str, parameters: int) -> None:
    """To the last one, as the checkpoints count them."""
    assert model(name).params().total == parameters
    assert name in model_names()


def test_expert_bytes_of_qwen3_30b() -> None:
    """57.98 GB in 48 layers of 128 experts of three 2048 x 768 matrices."""
    shape = model("Qwen/Qwen3-30B-A3B")
    assert shape.weight_bytes("bfloat16").expert == 48 * 128 * 3 * 2048 * 768 * 2
    assert shape.expert_bytes("bfloat16") == 3 * 2048 * 768 * 2
    assert shape.weight_bytes("bfloat16").total == 2 * shape.params().total


def test_fp8_leaves_router_and_embeddings_alone() -> None:
    shape = model("Qwen/Qwen3-30B-A3B")
    bf16, fp8 = shape.weight_bytes("bfloat16"), shape.weight_bytes("fp8")
    assert fp8.expert * 2 == bf16.expert
    assert fp8.attention == pytest.approx(bf16.attention / 2, rel=1e-4)
    same = (fp8.router, fp8.embedding, fp8.lm_head, fp8.norm)
    assert same == (bf16.router, bf16.embedding, bf16.lm_head, bf16.norm)


def test_gpt_oss_checkpoint_size() -> None:
    """13,761,264,768 bytes: `total_size` of the published gpt-oss-20b index."""
    shape = model("openai/gpt-oss-20b")
    assert shape.native_dtype == "mxfp4"
    assert shape.weight_bytes("mxfp4").total == 13_761_264_768
    matrices, biases = 3 * 2880 * 2880, 3 * 2880
    assert shape.expert_bytes("mxfp4") == matrices * 4.25 / 8 + biases * 2


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [
        ("Qwen/Qwen3-30B-A3B", 98_304),
        ("Qwen/Qwen3-8B", 147_456),
        ("meta-llama/Llama-3.1-70B", 327_680),
        ("openai/gpt-oss-20b", 49_152),
    ],
)
def test_kv_bytes_per_token(name: str, kv_bytes: int) -> None:
    """2 x layers x KV heads x head_dim x 2 bytes; half of it in fp8."""
    shape = model(name)
    assert shape.kv_bytes_per_token("bfloat16") == kv_bytes
    assert shape.kv_bytes_per_token("fp8") * 2 == kv_bytes
    assert shape.kv_bytes_per_token_layer("bfloat16") * shape.num_layers == kv_bytes


def test_gpt_oss_alternates_windows() -> None:
    shape = model("gpt-oss-120b")
    assert shape.layer_windows[:4] == (128, 0, 128, 0)
    assert (shape.sliding_window, shape.windowed_layers) == (128, 18)
    assert model("Qwen3-8B").sliding_window == model("Qwen3-8B").windowed_layers == 0


def test_dense_and_moe_are_told_apart() -> None:
    assert (model("qwen3-8b").is_moe, model("qwen3-8b").num_moe_layers) == (False, 0)
    assert model("mixtral-8x7b-v0.1").num_moe_layers == 32
    assert model("mixtral-8x7b-v0.1").weight_bytes("bfloat16").dense_ffn == 0
    assert model("qwen3-8b").weight_bytes("bfloat16").expert == 0


@pytest.mark.parametrize(
    "alias",
    [
        "qwen/qwen3-30b-a3b",
        "QWEN3-30B-A3B",
        "Qwen3-30B-A3B-Instruct",
        " Qwen/Qwen3-30B-A3B-Instruct ",
    ],
)
def test_aliases(alias: str) -> None:
    assert model(alias) is model("Qwen/Qwen3-30B-A3B")


@pytest.mark.parametrize(
    ("variant", "base", "context"),
    [
        ("Qwen3-30B-A3B-Instruct-2507", "Qwen3-30B-A3B", 262_144),
        ("Qwen3-Coder-30B-A3B-Instruct", "Qwen3-30B-A3B", 262_144),
        ("Qwen3-235B-A22B-Thinking-2507", "Qwen3-235B-A22B", 262_144),
        ("Qwen3-4B-Instruct-2507", "Qwen3-4B", 262_144),
        ("Qwen2.5-7B-Instruct", "Qwen2.5-7B", 32_768),
        ("Meta-Llama-3-70B-Instruct", "Llama-3.1-70B", 8_192),
        ("Kimi-K2-Instruct-0905", "Kimi-K2-Instruct", 262_144),
    ],
)
def test_variants_are_the_same_network(variant: str, base: str, context: int) -> None:
    """Name, parameters and format of the model, and a context of their own."""
    shape, known = model(variant), model(base)
    assert (shape.name, shape.params()) == (known.name, known.params())
    assert shape.native_dtype == known.native_dtype
    assert shape.max_position_embeddings == context != known.max_position_embeddings


@pytest.mark.parametrize(
    "name",
    [
        *(f"Qwen/Qwen3-{size}" for size in ("0.6B", "1.7B", "4B", "8B", "14B", "32B")),
        *("Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-30B-A3B-Instruct-2507"),
        *("Qwen/Qwen3-235B-A22B", "Qwen/Qwen3-235B-A22B-Instruct-2507"),
        "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        "Qwen/Qwen3-Coder-480B-A35B-Instruct",
    ],
)
def test_fp8_checkpoints_run_in_fp8(name: str) -> None:
    """Block-scaled, and otherwise the model without the ending."""
    shape, plain = model(f"{name}-FP8"), model(name)
    assert (shape.native_dtype, plain.native_dtype) == ("fp8", "bfloat16")
    assert shape.fp8_block
    assert replace(shape, native_dtype="bfloat16") == plain


def test_fp8_checkpoint_of_llama_405b() -> None:
    """Attention stays in bfloat16, as its `modules_to_not_convert` says; by hand."""
    shape, plain = (model(f"Llama-3.1-405B{ending}") for ending in ("-FP8", ""))
    assert model("Meta-Llama-3.1-405B-Instruct-FP8") is shape
    assert shape.native_dtype == "fp8"
    assert not shape.fp8_block
    fp8, bf16 = shape.weight_bytes("fp8"), shape.weight_bytes("bfloat16")
    assert fp8.attention == bf16.attention == 126 * 2 * 2 * 16384 * (16384 + 1024)
    assert 2 * fp8.dense_ffn == bf16.dense_ffn == 126 * 3 * 16384 * 53248 * 2
    # Quantised when loaded, the bfloat16 checkpoint is fp8 throughout.
    assert 2 * plain.weight_bytes("fp8").attention == bf16.attention


@pytest.mark.parametrize(("name", "total"), [("Scout", 109), ("Maverick", 400)])
def test_llama_4_has_17_billion_active_parameters(name: str, total: int) -> None:
    """The model cards' figures, Scout's total with 0.9 B of vision; one expert is
    active of 16 or 128, beside the shared one or, in half of Maverick's layers, a dense
    part of twice the width."""
    shape = model(f"Llama-4-{name}")
    params = shape.params()
    assert params.total / 1e9 == pytest.approx(total, rel=0.012)
    idle = params.expert * (shape.num_experts - 1) // shape.num_experts
    assert (params.total - idle) / 1e9 == pytest.approx(17, abs=0.5)


def test_kimi_k2_has_a_trillion_parameters_of_which_32_billion_are_active() -> None:
    """The model card's figures; 376 of 384 experts and the embedding are not active."""
    params = model("Kimi-K2-Instruct").params()
    assert params.total / 1e12 == pytest.approx(1.0, abs=0.03)
    active = params.total - params.expert * 376 // 384 - params.embedding
    assert active / 1e9 == pytest.approx(32, abs=0.5)


def test_every_name_stands_for_one_model() -> None:
    """Full names are given once; their last parts do not clash either."""
    document = tomllib.loads((DATA_DIR / "models.toml").read_text())
    names = [
        name
        for base, facts in document.items()
        for name in (
            *(base, *facts["aliases"]),
            *(n for variant in facts.get("variants", ()) for n in variant["names"]),
        )
    ]
    for known in (names, [name.rpartition("/")[2] for name in names]):
        assert len({name.casefold() for name in known}) == len(known)
    assert all(model(name) is model(name.rpartition("/")[2]) for name in names)


def test_aliases_of_llama_and_mixtral() -> None:
    assert model("Meta-Llama-3.1-8B-Instruct").name == "meta-llama/Llama-3.1-8B"
    assert model("Llama-3.3-70B-Instruct") is model("meta-llama/Llama-3.1-70B")
    assert model("Llama-3.1-70B-Instruct").name == "meta-llama/Llama-3.1-70B"
    assert model("Mixtral-8x7B-Instruct-v0.1").name == "mistralai/Mixtral-8x7B-v0.1"


@pytest.mark.parametrize("name", ["", "qwen3-9b", "/no/such/place", "a" * 5000, "\0"])
def test_unknown_model(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown model") as refused:
        model(name)
    assert "Qwen/Qwen3-8B" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_format_the_model_does_not_have() -> None:
    with pytest.raises(ConfigError, match='Qwen3-8B: weight dtype "mxfp4"; allowed'):
        model("qwen3-8b").weight_bytes("mxfp4")
    with pytest.raises(ConfigError, match='weight dtype "int4"; allowed'):
        model("qwen3-30b-a3b").expert_bytes("int4")
    with pytest.raises(ConfigError, match='KV dtype "mxfp4"; allowed'):
        model("qwen3-8b").kv_bytes_per_token("mxfp4")


def test_a_path_gives_the_same_shape_as_the_catalogue(tmp_path: Path) -> None:
    """A config.json with Mixtral's facts, by file and by folder."""
    config = {
        "model_type": "mixtral",
        "hidden_act": "silu",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "vocab_size": 32000,
        "max_position_embeddings": 32768,
        "sliding_window": None,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    by_folder, by_file = model(str(tmp_path)), model(str(tmp_path / "config.json"))
    catalogued = model("mistralai/Mixtral-8x7B-v0.1")
    assert by_folder.params() == by_file.params() == catalogued.params()
    assert by_file.head_dim == 128
