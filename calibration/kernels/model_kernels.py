"""All kernels of one model on one GPU of a tensor-parallel group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.engine_profiles import EngineProfile
from calibration.hardware import Gpu
from calibration.kernels.attention import (
    AttentionShape,
    DecodeAttention,
    PrefillAttention,
)
from calibration.kernels.collectives import Collectives
from calibration.kernels.dense_gemms import dense_gemms
from calibration.kernels.expert_table import expert_table
from calibration.kernels.experts import Experts, Inefficiency
from calibration.kernels.gemm import Gemms
from calibration.kernels.latent_attention import LatentDecode, LatentPrefill
from calibration.kernels.latent_heads import LatentHeads, absorbed_chunk_tokens
from calibration.kernels.layer_parts import (
    attention_products,
    elementwise,
    ffn_elementwise,
    ffn_products,
)
from calibration.kernels.moe_roofline import MoeSlice
from calibration.kernels.what_if import MachineScale
from calibration.model_shape import ModelShape
from calibration.tables import KernelTables
from sim.errors import ConfigError
from sim.kernel_times import Timed
from sim.stages import Stage, pipeline_stages

_ACTIVATION_BYTES = 2  # activations are bfloat16


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A model as it is served on one tensor-parallel group.

    Attributes:
        model: Sizes of the model.
        dtype: Weight format, "bfloat16", "fp8" or "mxfp4".
        kv_dtype: KV cache format, "bfloat16" or "fp8".
        tp: Tensor-parallel size.
        ep: Expert-parallel size, 1 or all GPUs.
        dp: Data-parallel ranks of attention, of ``tp`` GPUs each.
        expert_copies: Slots per expert, over 1 with redundant experts.
        contexts_everywhere: Every data-parallel rank holds every request's KV.
        pp: Pipeline stages, each of ``tp`` GPUs.
    """

    model: ModelShape
    dtype: str
    kv_dtype: str
    tp: int
    ep: int
    dp: int = 1
    expert_copies: float = 1.0
    contexts_everywhere: bool = False
    pp: int = 1

    @property
    def gpus(self) -> int:
        """GPUs of a replica, or of one stage of its pipeline."""
        return self.tp * self.dp

    @property
    def replica_gpus(self) -> int:
        """GPUs of a replica, all stages together."""
        return self.gpus * self.pp

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Layers by stage; one stage without a pipeline."""
        return pipeline_stages(self.model.num_layers, self.pp)


class ModelKernels:
    """Implements :class:`sim.kernel_times.KernelTimes` from profiled tables.

    Args:
        tables: Profiled tables of the GPU.
        gpu: The GPU as profiled.
        deployment: The model, its formats and its split.
        profile: The engine.
        scale: What-if factors on the machine.

    Raises:
        ConfigError: If the split does not divide the model or a kernel it needs was
            not profiled on this GPU.
    """

    def __init__(
        self,
        *,
        tables: KernelTables,
        gpu: Gpu,
        deployment: Deployment,
        profile: EngineProfile,
        scale: MachineScale,
    ) -> None:
        model, tp, dtype = deployment.model, deployment.tp, deployment.dtype
        _check_split(deployment)
        self._model = model
        self._scale = scale
        self._unscaled = scale.unchanged
        self.tp = tp
        launched = tables.gpu in profile.launched_gemms
        dense = dense_gemms(tables, model, dtype, launched=launched)
        self._gemms = dense.gemms
        self.packs = tuple(dict.fromkeys((tables, dense.tables)))
        self._head_gemms = Gemms(tables, "bfloat16")
        self._projections = self._head_gemms if model.bf16_attention else dense.gemms
        self._collectives = Collectives(
            tables, tp, profile.custom_all_reduce_bytes, scale.link
        )
        self._elementwise_ns = gpu.elementwise_latency_us * 1e3
        self._elementwise_rate = (
            gpu.elementwise_bandwidth_fraction
            * gpu.hbm_bandwidth_bytes_per_s
            * scale.hbm
            / 1e9
        )
        self._attention = {
            window > 0: _attention(tables, gpu, dense.gemms, deployment, window)
            for window in sorted(set(model.layer_windows))
        }
        self.absorbed_chunk_tokens = absorbed_chunk_tokens(tables, deployment.kv_dtype)
        # The small kernels of attention are inside the times of profiled modules.
        self._inside = model.latent is not None and "mla_prefill_module" in tables.names
        self._row_layer_ns = profile.row_layer_ns
        self._prefill_factor = profile.prefill_attention_factor
        self._experts = _experts(tables, deployment, profile) if model.is_moe else None
        self._linear: dict[tuple[int, bool], Timed] = {}
        self._last_prefill: dict[bool, tuple[Sequence[tuple[int, int]], Timed]] = {}

    @property
    def scale(self) -> MachineScale:
        """What-if factors on the machine."""
        return self._scale

    @property
    def routed_experts(self) -> Experts:
        """Kernel of the routed experts.

        Raises:
            ConfigError: If the model is dense.
        """
        if self._experts is None:
            raise ConfigError(f"{self._model.name} has no experts to place")
        return self._experts

    def linear(self, rows: int, *, leading: bool = False) -> Timed:
        """Attention projections, router, shared and dense FFN of one layer."""
        known = self._linear.get((rows, leading))
        if known is None:
            parts = (*self.projections(rows), *self.ffn(rows, leading=leading))
            known = _sum(time for time, _ in parts)
            self._linear[rows, leading] = known
        return known

    def projections(self, rows: int) -> tuple[tuple[Timed, int], ...]:
        """Time and HBM bytes of attention's products, the output projection last."""
        shapes = attention_products(self._model, self.tp)
        return tuple(self._product(self._projections, rows, *s) for s in shapes)

    def ffn(self, rows: int, *, leading: bool) -> tuple[tuple[Timed, int], ...]:
        """Time and HBM bytes of the other products, the down projection last."""
        shapes = ffn_products(self._model, self.tp, leading=leading)
        return tuple(self._product(self._gemms, rows, *s) for s in shapes)

    def _product(self, gemms: Gemms, rows: int, n: int, k: int) -> tuple[Timed, int]:
        moved = n * k * gemms.weight_bytes + rows * (n + k) * _ACTIVATION_BYTES
        timed = gemms.at(rows, n, k)
        return self._scale.apply(timed, hbm_bytes=moved, flops=2 * rows * n * k), moved

    def elementwise(self, rows: int, *, leading: bool = False) -> Timed:
        """Norms, rotary embedding and activation functions of one layer.

        Analytic: a constant per kernel plus its bytes at a share of HBM bandwidth,
        and the engine's own small kernels per row.
        """
        kernels, row_bytes = self.elementwise_work(leading=leading)
        per_row_ns = row_bytes / self._elementwise_rate + self._row_layer_ns
        return Timed(round(kernels * self._elementwise_ns + rows * per_row_ns))

    def elementwise_work(self, *, leading: bool = False) -> tuple[int, int]:
        """Memory-bound kernels of one layer, and the bytes they move per row."""
        return elementwise(self._model, self.tp, leading=leading, inside=self._inside)

    def elementwise_row_bytes(self, leading: bool) -> int:
        """Bytes per row of the memory-bound kernels of one layer of a kind."""
        return self.elementwise_work(leading=leading)[1]

    def ffn_elementwise(self, rows: int, *, leading: bool = False) -> tuple[int, int]:
        """Time (ns) of the memory-bound kernels after attention, and bytes per row."""
        kernels, row_bytes = ffn_elementwise(self._model, self.tp, leading=leading)
        ns = kernels * self._elementwise_ns + rows * row_bytes / self._elementwise_rate
        return round(ns), row_bytes

    def expert_bytes(self, rows: int, touched: float) -> float:
        """HBM bytes of the routed experts' weights on one GPU."""
        return self._experts.work(rows, touched)[0] if self._experts else 0.0

    def prefill_bytes(
        self, chunks: Sequence[tuple[int, int]], *, windowed: bool
    ) -> float:
        """HBM bytes of the attention of (prefix, tokens) chunks on one GPU."""
        return self._attention[windowed][0].work(chunks).hbm_bytes

    def decode_bytes(self, batch: int, context: int, *, windowed: bool) -> float:
        """HBM bytes of the attention of ``batch`` rows on one GPU."""
        return self._attention[windowed][1].work(batch, context).hbm_bytes

    def experts(self, rows: int, touched: float) -> Timed:
        """Routed experts of one layer; zero for dense models."""
        if self._experts is None:
            return Timed(0)
        timed = self._experts.at(rows, touched)
        weights, flops = self._experts.work(rows, touched)
        return self._scale.apply(timed, hbm_bytes=weights, flops=flops)

    def all_reduce(self, rows: int, *, graph: bool) -> Timed:
        """One all-reduce of ``rows`` hidden states."""
        message = rows * self._model.hidden_size * _ACTIVATION_BYTES
        return self._collectives.all_reduce(message, graph=graph)

    def prefill_attention(
        self, chunks: Sequence[tuple[int, int]], *, windowed: bool
    ) -> Timed:
        """Causal attention of (prefix, tokens) chunks in one layer."""
        # A batch in flight asks for the same chunks once per layer group.
        known = self._last_prefill.get(windowed)
        if known is not None and known[0] == chunks:
            return known[1]
        prefill, _ = self._attention[windowed]
        timed = prefill.at(chunks)
        if (factor := self._prefill_factor) != 1.0:
            ns, outside = timed
            timed = Timed(round(ns * factor), round(outside * factor))
        if not self._unscaled:
            work = prefill.work(chunks)
            timed = self._scale.apply(timed, hbm_bytes=work.hbm_bytes, flops=work.flops)
        self._last_prefill[windowed] = (chunks, timed)
        return timed

    def decode_attention(self, batch: int, context: int, *, windowed: bool) -> Timed:
        """Attention of ``batch`` rows over ``context`` KV tokens in one layer."""
        if not batch:
            return Timed(0)
        _, decode = self._attention[windowed]
        timed = decode.at(batch, context)
        if self._unscaled:
            return timed
        work = decode.work(batch, context)
        return self._scale.apply(timed, hbm_bytes=work.hbm_bytes, flops=work.flops)

    def decode_attention_many(
        self, batch: int, contexts: npt.NDArray[np.int64], *, windowed: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """:meth:`decode_attention` over an array of contexts, for ``batch`` >= 1."""
        _, decode = self._attention[windowed]
        ns, outside = decode.many(batch, contexts)
        if not self._unscaled:
            hbm_bytes, flops = decode.work_many(batch, contexts)
            ns = self._scale.apply_many(ns, hbm_bytes=hbm_bytes, flops=flops)
        return ns, outside

    def head(self, rows: int, logit_rows: int) -> Timed:
        """Embedding of ``rows`` tokens, LM head and sampling of ``logit_rows``.

        Embedding, final norm and sampling are memory-bound and analytic.
        """
        model = self._model
        hidden_bytes = 2 * rows * model.hidden_size * _ACTIVATION_BYTES
        vocab = -(-model.vocab_size // self.tp)
        logit_bytes = logit_rows * model.vocab_size * _ACTIVATION_BYTES
        analytic = (
            3 * self._elementwise_ns
            + (2 * hidden_bytes + 2 * logit_bytes) / self._elementwise_rate
        )
        lm_head = self._scale.apply(
            self._head_gemms.at(logit_rows, vocab, model.hidden_size),
            hbm_bytes=vocab * model.hidden_size * 2,
            flops=2 * logit_rows * vocab * model.hidden_size,
        )
        return _sum((Timed(round(analytic)), lm_head))

    def embedding(self, rows: int) -> Timed:
        """The embedding's part of :meth:`head`: one kernel, a row read and written."""
        moved = 2 * rows * self._model.hidden_size * _ACTIVATION_BYTES
        return Timed(round(self._elementwise_ns + moved / self._elementwise_rate))

    def gather_hidden(self, rows: int) -> Timed:
        """Gather of hidden state and residual of ``rows`` that came in shares."""
        row_bytes = 2 * self._model.hidden_size * _ACTIVATION_BYTES
        return self._collectives.all_gather(rows * row_bytes)

    def gather_logits(self, logit_rows: int) -> Timed:
        """Gather of ``logit_rows`` rows of logits from a split vocabulary."""
        row_bytes = self._model.vocab_size * _ACTIVATION_BYTES
        return self._collectives.all_gather(logit_rows * row_bytes)


def _sum(parts: Iterable[Timed]) -> Timed:
    ns = extrapolated = 0
    for part in parts:
        ns += part.ns
        extrapolated += part.extrapolated_ns
    return Timed(ns, extrapolated)


def _attention(
    tables: KernelTables, gpu: Gpu, gemms: Gemms, deployment: Deployment, window: int
) -> tuple[PrefillAttention | LatentPrefill, DecodeAttention | LatentDecode]:
    model, tp = deployment.model, deployment.tp
    if model.latent:
        heads = LatentHeads(
            latent=model.latent,
            num_heads=model.num_heads // tp,
            dtype="fp8" if deployment.dtype == "fp8" else "bfloat16",
            kv_dtype=deployment.kv_dtype,
        )
        return (
            LatentPrefill(tables, gpu, gemms, heads),
            LatentDecode(tables, gpu, gemms, heads),
        )
    shape = AttentionShape(
        num_heads=model.num_heads // tp,
        num_kv_heads=max(model.num_kv_heads // tp, 1),
        head_dim=model.head_dim,
        window=window,
        kv_dtype=deployment.kv_dtype,
    )
    return PrefillAttention(tables, gpu, shape), DecodeAttention(tables, shape)


def _experts(
    tables: KernelTables, deployment: Deployment, profile: EngineProfile
) -> Experts:
    model, moe_tp = deployment.model, deployment.gpus // deployment.ep
    moe_slice = MoeSlice(
        model.hidden_size,
        model.moe_intermediate_size,
        model.top_k,
        model.num_experts,
        moe_tp,
        deployment.ep,
    )
    inter = model.moe_intermediate_size // moe_tp
    tuned = profile.moe_table(tables.gpu, model.num_experts, inter)
    table = expert_table(tables, model, deployment.dtype, tuned)
    # Measured on the untuned kernel; a tuned one is another kernel.
    factors = profile.moe if table == "moe_untuned" else Inefficiency()
    return Experts(tables, table, deployment.dtype, moe_slice, factors)


def _check_split(deployment: Deployment) -> None:
    model, tp, ep = deployment.model, deployment.tp, deployment.ep
    if deployment.pp > model.num_layers:
        raise ConfigError(
            f"parallel.pipeline_parallel_size = {deployment.pp}: must be <="
            f" {model.num_layers}, the layers of {model.name}"
        )
    key = f"parallel.tensor_parallel_size = {tp}"
    if model.num_heads % tp:
        raise ConfigError(
            f"{key}: must divide the {model.num_heads} attention heads of {model.name}"
        )
    if model.num_kv_heads % tp and tp % model.num_kv_heads:
        raise ConfigError(
            f"{key}: must divide, or be a multiple of, the"
            f" {model.num_kv_heads} KV heads of {model.name}"
        )
    width = model.moe_intermediate_size if model.is_moe else model.intermediate_size
    if width % (deployment.gpus // ep):
        raise ConfigError(f"{key}: must divide the FFN width {width} of {model.name}")
    for width in (model.intermediate_size, model.shared_intermediate_size):
        if width % tp:
            raise ConfigError(
                f"{key}: must divide the dense FFN width {width} of {model.name}"
            )
    if ep > 1 and (not model.is_moe or model.num_experts % ep):
        raise ConfigError(
            f"parallel.expert_parallel_size = {ep}: must divide the"
            f" {model.num_experts} experts of {model.name}"
        )
