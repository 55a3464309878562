"""The shape of a transformer: what its sizes say about parameters, weights and KV.

Grouped-query or latent attention, a gated feed-forward part that is dense or, in all
layers or some, a mixture of experts with or without a shared one, RMS norms: the Llama,
Mistral, Mixtral, Qwen, gpt-oss, DeepSeek and Kimi families.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import accumulate
from typing import Final

from calibration.latent_shape import LatentShape
from sim.errors import ConfigError

# Bits per weight. mxfp4: 4-bit values and one 8-bit scale per block of 32 (OCP
# Microscaling Formats specification 1.0, section 5).
BITS_PER_WEIGHT: Final = {"bfloat16": 16.0, "fp8": 8.0, "mxfp4": 4.25}
_KV_BYTES: Final = {"bfloat16": 2, "fp8": 1}
_GATED_MATRICES: Final = 3  # gate, up and down projections


@dataclass(frozen=True, slots=True)
class ByComponent:
    """A quantity per component of the whole model: parameters, or weight bytes."""

    attention: int
    router: int
    expert: int
    dense_ffn: int
    embedding: int
    lm_head: int
    norm: int
    shared_expert: int = 0

    @property
    def total(self) -> int:
        """The sum over all components."""
        return sum(astuple(self))


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of one model.

    Layers are alike but for their attention window and, in MoE models some of whose
    layers are dense, their feed-forward part.

    Attributes:
        name: catalogue name, or path of its config.json.
        num_layers: transformer layers.
        hidden_size: width of the residual stream.
        num_heads: query heads.
        num_kv_heads: key and value heads; 1 in latent attention, whose cache all heads
            share.
        head_dim: width of a head; of its query in latent attention.
        intermediate_size: width of the dense feed-forward part, 0 if every layer has
            experts.
        num_experts: experts per layer, 0 in dense models.
        top_k: experts per token, 0 in dense models.
        moe_intermediate_size: width of one expert, 0 in dense models.
        vocab_size: rows of the embedding.
        tie_word_embeddings: the LM head is the embedding.
        layer_windows: attention window of each layer in tokens, 0 = full attention.
        max_position_embeddings: longest context the model was made for.
        native_dtype: format the weights are published in.
        qkv_bias: the query, key and value projections have biases.
        output_bias: the output projection has a bias.
        ffn_bias: router and expert (or dense) projections have biases.
        qk_norm: queries and keys are normalised per head.
        fp8_block: its fp8 checkpoint has a scale per 128 x 128 block of weights.
        bf16_attention: its fp8 checkpoint keeps the attention projections in bfloat16.
        attention_sinks: one learned sink logit per query head.
        routing_bias: the router adds a learned bias to choose experts.
        dense_layers: layers with a dense feed-forward part in MoE models, from 0.
        shared_intermediate_size: width of the shared experts together, 0 if none.
        latent: widths of latent attention, None for grouped-query attention.
        truncated_sampling: tokens are drawn from the likeliest only (top-p or top-k),
            by the model's own generation settings.
    """

    name: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    num_experts: int
    top_k: int
    moe_intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool
    layer_windows: tuple[int, ...]
    max_position_embeddings: int
    native_dtype: str = "bfloat16"
    qkv_bias: bool = False
    output_bias: bool = False
    ffn_bias: bool = False
    qk_norm: bool = False
    fp8_block: bool = False
    bf16_attention: bool = False
    attention_sinks: bool = False
    routing_bias: bool = False
    dense_layers: tuple[int, ...] = ()
    shared_intermediate_size: int = 0
    latent: LatentShape | None = None
    truncated_sampling: bool = False

    @property
    def is_moe(self) -> bool:
        """Whether the feed-forward part is a mixture of experts."""
        return self.num_experts > 0

    @property
    def num_moe_layers(self) -> int:
        """Layers with experts."""
        return self.num_layers - len(self.dense_layers) if self.is_moe else 0

    @property
    def dense_before(self) -> tuple[int, ...]:
        """Layers with a dense feed-forward part among the first n, for every n."""
        layers = range(self.num_layers)
        dense = self.dense_layers if self.is_moe else layers
        return tuple(accumulate((layer in dense for layer in layers), initial=0))

    @property
    def sliding_window(self) -> int:
        """Tokens seen by the windowed layers; 0 if no layer is windowed."""
        return max(self.layer_windows)

    @property
    def windowed_layers(self) -> int:
        """Layers whose attention is limited to a window."""
        return sum(window > 0 for window in self.layer_windows)

    def expert_bytes(self, dtype: str) -> float:
        """Weight bytes of one expert in one layer.

        Raises:
            ConfigError: if `dtype` is not a weight format of this model.
        """
        _, _, quantised = self._formats(dtype)
        matrices = _GATED_MATRICES * self.hidden_size * self.moe_intermediate_size
        biases = self._ffn_biases(self.moe_intermediate_size)
        return matrices * quantised + biases * BITS_PER_WEIGHT["bfloat16"] / 8

    def params(self) -> ByComponent:
        """Parameter counts of the whole model."""
        return self._by_component((1.0, 1.0, 1.0), 1.0)

    def weight_bytes(self, dtype: str) -> ByComponent:
        """Bytes of the whole model's weights, rounded to whole bytes per component.

        Router, embedding, LM head, norms and biases stay bfloat16 in every format;
        mxfp4 packs the experts only, fp8 also dense feed-forward and, but in models of
        ``bf16_attention``, attention.

        Args:
            dtype: "bfloat16", "fp8", or "mxfp4" for MoE models.

        Raises:
            ConfigError: if `dtype` is not a weight format of this model.
        """
        return self._by_component(self._formats(dtype), BITS_PER_WEIGHT["bfloat16"] / 8)

    def replicated_attention_bytes(self, dtype: str) -> int:
        """Bytes of one layer's attention weights that every GPU of a group holds whole.

        Raises:
            ConfigError: if `dtype` is not a weight format of this model.
        """
        if self.latent is None:
            return 0
        projections, _, _ = self._formats(dtype)
        return round(self.latent.down_projections(self.hidden_size) * projections)

    def kv_bytes_per_token_layer(self, kv_dtype: str) -> int:
        """Bytes of one token's keys and values, or latents, in one layer.

        Raises:
            ConfigError: if `kv_dtype` is not "bfloat16" or "fp8".
        """
        if kv_dtype not in _KV_BYTES:
            raise ConfigError(f'KV dtype "{kv_dtype}"; allowed: bfloat16, fp8')
        width = 2 * self.num_kv_heads * self.head_dim
        if self.latent:
            width = self.latent.cache_width
        return width * _KV_BYTES[kv_dtype]

    def kv_bytes_per_token(self, kv_dtype: str) -> int:
        """Bytes of one token's keys and values in all layers, windowed ones too.

        Raises:
            ConfigError: if `kv_dtype` is not "bfloat16" or "fp8".
        """
        return self.num_layers * self.kv_bytes_per_token_layer(kv_dtype)

    def _formats(self, dtype: str) -> tuple[float, float, float]:
        """Bytes per weight of (attention projections, dense FFN, experts)."""
        allowed = tuple(BITS_PER_WEIGHT) if self.is_moe else tuple(_KV_BYTES)
        if dtype not in allowed:
            raise ConfigError(
                f'{self.name}: weight dtype "{dtype}"; allowed: {", ".join(allowed)}'
            )
        dense = "bfloat16" if dtype == "mxfp4" else dtype
        projections = "bfloat16" if self.bf16_attention else dense
        return (
            BITS_PER_WEIGHT[projections] / 8,
            BITS_PER_WEIGHT[dense] / 8,
            BITS_PER_WEIGHT[dtype] / 8,
        )

    def _by_component(
        self, quantised: tuple[float, float, float], plain: float
    ) -> ByComponent:
        """Sum per component: weights by `_formats` and plain ones times a factor."""
        projections, dense, expert = quantised
        layers, hidden = self.num_layers, self.hidden_size
        moe_layers = self.num_moe_layers
        attention = self._attention_matrices() * projections
        attention += self._attention_extras() * plain
        biased = self.ffn_bias or self.routing_bias
        router = hidden * self.num_experts + biased * self.num_experts
        matrices = _GATED_MATRICES * hidden * self.moe_intermediate_size * expert
        biases = self._ffn_biases(self.moe_intermediate_size) * plain
        shared = _GATED_MATRICES * hidden * self.shared_intermediate_size * dense
        ffn = _GATED_MATRICES * hidden * self.intermediate_size * dense
        ffn += self._ffn_biases(self.intermediate_size) * plain
        embedding = self.vocab_size * hidden
        return ByComponent(
            attention=round(layers * attention),
            router=round(moe_layers * router * plain),
            expert=round(moe_layers * self.num_experts * (matrices + biases)),
            dense_ffn=round((layers - moe_layers) * ffn),
            embedding=round(embedding * plain),
            lm_head=0 if self.tie_word_embeddings else round(embedding * plain),
            norm=round((2 * layers + 1) * hidden * plain),
            shared_expert=round(moe_layers * shared),
        )

    def _widths(self) -> tuple[int, int]:
        return self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim

    def _attention_matrices(self) -> int:
        """Weights of the attention projections of one layer."""
        if self.latent:
            heads = self.num_heads * self.latent.head_projections(self.hidden_size)
            return heads + self.latent.down_projections(self.hidden_size)
        return 2 * self.hidden_size * sum(self._widths())

    def _attention_extras(self) -> int:
        """Unquantised attention parameters of one layer: biases, norms, sinks."""
        if self.latent:
            return self.latent.norms
        width, kv_width = self._widths()
        biases = self.qkv_bias * (width + 2 * kv_width)
        biases += self.output_bias * self.hidden_size
        norms = self.qk_norm * 2 * self.head_dim
        return biases + norms + self.attention_sinks * self.num_heads

    def _ffn_biases(self, width: int) -> int:
        """Biases of one gated feed-forward part or expert, 0 if there is none."""
        return (2 * width + self.hidden_size) * bool(self.ffn_bias and width)
