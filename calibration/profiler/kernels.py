"""The kernels themselves, as callables over torch tensors.

Every builder takes the key values of a kernel and a `Bench` and gives a `Built`. torch
and the optional libraries are passed in or looked up when a kernel is built, so this
module imports without them. Where an engine's own kernel is not installed, plain torch
stands in, and `source` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from calibration.profiler.attention_kernels import decode, prefill
from calibration.profiler.columns import Kernel
from calibration.profiler.device import KernelFailedError
from calibration.profiler.expert_kernels import experts
from calibration.profiler.kernel_parts import Bench, Built, Keys

_DTYPE: Final = "bfloat16"
_BYTES: Final = 2


def build(kernel: Kernel, bench: Bench) -> Built:
    """The callable of a kernel, its tensors allocated.

    Raises:
        KernelFailedError: if there is no such kernel here, with the reason.
    """
    keys = kernel.keys
    dtype = keys.get("dtype", keys.get("kv_dtype", _DTYPE))
    if dtype != _DTYPE:
        raise KernelFailedError(f"no {dtype} kernel; only {_DTYPE}")
    return _BUILDERS[kernel.table](keys, bench)


def _gemm(keys: Keys, bench: Bench) -> Built:
    m, n, k = (int(keys[column]) for column in ("m", "n", "k"))
    x, weight = bench.normal(m, k), bench.normal(n, k)
    linear = bench.torch.nn.functional.linear
    return Built(lambda: linear(x, weight), "torch.nn.functional.linear")


def _custom_allreduce(keys: Keys, bench: Bench) -> Built:
    _check_group(keys, bench)
    communicator = bench.custom_all_reduce
    if communicator is None:
        raise KernelFailedError("custom all-reduce: vLLM is not installed")
    message = bench.normal(int(keys["message_size"]) // _BYTES)
    if not communicator.should_custom_ar(message):
        raise KernelFailedError("custom all-reduce: vLLM does not take this message")
    return Built(
        lambda: communicator.custom_all_reduce(message),
        "vllm.CustomAllreduce",
        eager=keys["backend"] == "eager",
        around_capture=communicator.capture,
    )


def _nccl(keys: Keys, bench: Bench) -> Built:
    _check_group(keys, bench)
    ranks, op = bench.num_ranks, str(keys["op_name"])
    elements = int(keys["message_size"]) // _BYTES
    if elements % ranks:
        raise KernelFailedError(f"{op}: message does not divide by {ranks} GPUs")
    collectives = bench.torch.distributed
    whole = bench.normal(elements)
    if op == "all_reduce":
        run = _call(collectives.all_reduce, whole)
    elif op == "all_gather":
        part = bench.normal(elements // ranks)
        run = _call(collectives.all_gather_into_tensor, whole, part)
    elif op == "reduce_scatter":
        part = bench.normal(elements // ranks)
        run = _call(collectives.reduce_scatter_tensor, part, whole)
    else:
        out = bench.torch.empty_like(whole)
        run = _call(collectives.all_to_all_single, out, whole)
    return Built(run, f"torch.distributed.{op}")


def _call(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def _check_group(keys: Keys, bench: Bench) -> None:
    if int(keys["num_gpus"]) != bench.num_ranks:
        raise KernelFailedError(
            f"needs {keys['num_gpus']} processes (torchrun --nproc-per-node), this is"
            f" a group of {bench.num_ranks}"
        )


_BUILDERS: Final[Mapping[str, Callable[[Keys, Bench], Built]]] = MappingProxyType(
    {
        "gemm": _gemm,
        "prefill_attention": prefill,
        "decode_attention": decode,
        "moe": experts,
        "custom_allreduce": _custom_allreduce,
        "nccl": _nccl,
    }
)
