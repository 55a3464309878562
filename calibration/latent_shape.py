"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): its sizes.

Keys and values of all heads are projections of one latent vector per token, which is
what the cache holds, beside one rotary key that all heads share. Two ways to compute
the same: *expanded*, where keys and values are projected out of the latents first, and
*absorbed*, where the projections move to queries and outputs and every head attends
to the latents themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

_MULTIPLY_ADD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentShape:
    """Widths of latent attention; heads and hidden size are the model's.

    Attributes:
        q_lora_rank: width of the query latent, 0 if queries are projected directly.
        kv_lora_rank: width of the key-value latent.
        nope_dim: width of a head's key without position.
        rope_dim: width of the rotary key, shared by all heads.
        value_dim: width of a head's value.
    """

    q_lora_rank: int
    kv_lora_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int

    @property
    def query_dim(self) -> int:
        """Width of one head's query and expanded key."""
        return self.nope_dim + self.rope_dim

    @property
    def cache_width(self) -> int:
        """Elements cached per token and layer, whatever the number of heads."""
        return self.kv_lora_rank + self.rope_dim

    @property
    def expanded_dim(self) -> int:
        """Elements of one head that the latent expands to, per token."""
        return self.nope_dim + self.value_dim

    @property
    def expanded_pair_flops(self) -> int:
        """FLOPs of one head per query-key pair over expanded keys and values."""
        return _MULTIPLY_ADD * (self.query_dim + self.value_dim)

    @property
    def absorbed_pair_flops(self) -> int:
        """FLOPs of one head per query-key pair over the latents themselves."""
        return _MULTIPLY_ADD * (self.cache_width + self.kv_lora_rank)

    @property
    def expand_flops(self) -> int:
        """FLOPs of one head to expand one token's latent, or to absorb one query."""
        return _MULTIPLY_ADD * self.kv_lora_rank * self.expanded_dim

    def down_projections(self, hidden: int) -> int:
        """Weights of the projections to the latents, which every GPU holds whole."""
        return hidden * (self.q_lora_rank + self.cache_width)

    def head_projections(self, hidden: int) -> int:
        """Weights of one head: query, expansion of the latent, and output."""
        query = (self.q_lora_rank or hidden) * self.query_dim
        expansion = self.kv_lora_rank * self.expanded_dim
        return query + expansion + self.value_dim * hidden

    @property
    def norms(self) -> int:
        """Weights of the norms of the latents."""
        return self.q_lora_rank + self.kv_lora_rank

    def products(self, hidden: int, heads: int) -> tuple[tuple[int, int], ...]:
        """(n, k) of the matrix products of all rows on a GPU with ``heads`` heads."""
        queries = heads * self.query_dim
        output = (hidden, heads * self.value_dim)
        if not self.q_lora_rank:
            return ((queries, hidden), (self.cache_width, hidden), output)
        down = (self.q_lora_rank + self.cache_width, hidden)
        return (down, (queries, self.q_lora_rank), output)

    def expansion(self, heads: int) -> tuple[int, int]:
        """(n, k) of the product that expands latents on a GPU with ``heads`` heads."""
        return heads * self.expanded_dim, self.kv_lora_rank
