"""Read-only access to the packed kernel timings of one GPU and framework.

`load_tables("h100_sxm")` reads one file, checks its SHA-256 and decodes nothing; a
column is decompressed when it is first asked for. Run time needs NumPy only. How the
packs are built: `calibration.build_pack`.

Tables and their columns (keys in sorting order; `latency_ns` is always there too):

* ``prefill_attention``: kv_dtype, num_heads, num_key_value_heads, head_dim,
  window_size (0 = full), batch_size, isl. Heads are per GPU; no prefix.
* ``decode_attention``: the same with `step` (past KV length) for isl.
* ``gemm``: dtype, n, k, m.
* ``moe``, and ``moe_untuned`` on H100 (Triton without tuned configurations): dtype,
  hidden_size, inter_size, topk, num_experts, moe_tp_size, moe_ep_size, distribution,
  num_tokens. Sizes are of the whole model, `num_tokens` those of all ranks.
* ``moe_fp8`` (vLLM on H100 and H200, of an older version): as ``moe``, which has no fp8
  there.
* ``custom_allreduce``: backend ("graph" or "eager"), num_gpus, message_size (bytes).
* ``nccl``: op_name, num_gpus, message_size (bytes). As in nccl-tests, a message is the
  whole buffer: the gathered output of all_gather, the full input of the other three.

* ``gemm_block``: as ``gemm``, for fp8 weights with a scale per 128 x 128 block.
* ``moe_block`` (vLLM): as ``moe``, for fp8 experts with a scale per 128 x 128 block.
* ``moe_deepseek``: as ``moe``, for DeepSeek-V3 and R1; its fp8 is block-scaled, and so
  is that of SGLang's ``moe``. vLLM's other MoE rows are fp8 with a scale per tensor.
* ``mla_prefill_module``, ``mla_decode_module``: dtype (of the projections; fp8 is
  block-scaled), attn_dtype, kv_dtype, num_heads, batch_size, isl or step. A whole
  latent-attention block of DeepSeek-V3, its projections included; no prefix; `step` is
  the KV length with the new token.
* ``mla_prefill``, ``mla_decode``: attn_dtype, kv_dtype, num_heads, batch_size, isl or
  step (past KV length). The attention kernel alone; ``mla_bmm``: dtype, op_name ("pre"
  or "post"), num_heads, num_tokens: the products that absorb the projections.

* ``deepep_normal``, ``deepep_low_latency`` (one node), ``deepep_normal_nodes``,
  ``deepep_low_latency_nodes`` (several), in packs of their own ("h100_sxm.deepep"):
  phase ("dispatch" of fp8 states with a scale per 128 values, or "combine" of
  bfloat16), num_nodes, hidden_size, topk, num_experts, num_tokens of one rank. Routing
  is uniform; a node is that of `calibration.hardware`.

Sets from `calibration.import_csv` may add ``prefill_attention_prefix`` (key `prefix`),
``moe_touched`` (key `touched_experts`) and a column `energy_uj`.

Data types are spelled "bfloat16", "fp8" and "mxfp4" (4-bit expert weights, bf16 math).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from calibration import pack_format
from calibration.lookup import unknown_name
from calibration.pack_archive import PackArchive
from calibration.pack_check import check_table
from calibration.pack_set import read_provenance
from calibration.pack_sources import DEEPEP, FRAMEWORKS, pack_name
from sim.config_errors import clip, one_line
from sim.errors import ConfigError
from sim.input_file import read_bytes

DATA_DIR: Final = Path(__file__).parent / "data"

_MAY_BE_ZERO: Final = frozenset({"window_size", "prefix", "energy_uj"})

Column = NDArray[Any]


class KernelTables:
    """The packed tables of one GPU, decoded lazily, one column at a time.

    Attributes:
        gpu: catalogue name of the GPU, such as "h100_sxm".
        framework: whose kernels were timed, such as "vllm".
        data_dir: folder of the set the pack belongs to.
        sha256: SHA-256 of the pack, to identify the calibration of a run.
        provenance: table name -> where the table comes from and what was modified.
    """

    __slots__ = (
        *("_archive", "_columns"),
        *("data_dir", "framework", "gpu", "provenance", "sha256"),
    )

    def __init__(
        self,
        gpu: str,
        framework: str,
        content: bytes,
        provenance: Mapping[str, Any],
        data_dir: Path,
    ) -> None:
        self.gpu: Final = gpu
        self.framework: Final = framework
        self.data_dir: Final = data_dir
        self.sha256: Final = pack_format.sha256(content)
        self.provenance: Final = provenance
        self._archive = PackArchive(content, f"{pack_name(gpu, framework)}.npz")
        self._columns: dict[str, Mapping[str, Column]] = {}

    @property
    def pack(self) -> str:
        """Name of the pack, such as "h100_sxm" or "h100_sxm.sglang"."""
        return pack_name(self.gpu, self.framework)

    def beside(self, framework: str) -> KernelTables | None:
        """The same GPU's tables of another framework in the same set, if it has them.

        Raises:
            ConfigError: if their file is missing or corrupt.
        """
        if pack_name(self.gpu, framework) not in read_provenance(self.data_dir):
            return None
        return load_tables(self.gpu, self.data_dir, framework)

    @property
    def version(self) -> str:
        """Whose GEMM kernels were timed, such as "vllm 0.24.0" or "vllm, my.csv"."""
        entry = self.provenance.get("gemm", {})
        if "framework_version" in entry:
            return f"{self.framework} {entry['framework_version']}"
        return ", ".join((self.framework, *filter(None, [entry.get("file")])))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tables this GPU has."""
        return tuple(sorted(self.provenance))

    def columns(self, table: str) -> Mapping[str, Column]:
        """All columns of a table: integers as int64, strings as NumPy strings.

        Rows are unique and sorted by the key columns from left to right, the order in
        which the module lists them. A column is decoded when it is first looked at.

        Args:
            table: one of `names`.

        Returns:
            Column name -> read-only array; all of the same length.

        Raises:
            ConfigError: if this GPU has no such table.
        """
        if table not in self.provenance:
            raise unknown_name(f"kernel table of {self.gpu}", table, self.names)
        if table not in self._columns:
            self._columns[table] = _LazyColumns(self._archive, table)
        return self._columns[table]

    def select(self, table: str, **equals: int | str) -> dict[str, Column]:
        """The rows of a table in which some columns have the given values.

        `select("gemm", dtype="bfloat16", n=4096, k=2048)` gives `m`, ascending, and
        `latency_ns`. A value that was not measured gives arrays of length zero.

        Args:
            table: one of `names`.
            **equals: column name -> the value its rows must have.

        Returns:
            The columns not fixed by `equals`, in key order, `latency_ns` last.

        Raises:
            ConfigError: if there is no such table or column, or it is damaged.
        """
        columns = self.columns(table)
        if pack_format.LATENCY not in columns:
            raise ConfigError(
                f"{self.pack}.npz: {clip(table)}: damaged: no {pack_format.LATENCY}"
            )
        for column in equals:
            if column not in columns:
                raise unknown_name(f"column of {table}", column, columns)
        mask = np.ones(len(columns[pack_format.LATENCY]), dtype=np.bool_)
        for column, value in equals.items():
            mask &= columns[column] == value
        rows = np.flatnonzero(mask)
        return {name: columns[name][rows] for name in columns if name not in equals}


class _LazyColumns(Mapping[str, Column]):
    """The columns of one table; decoding waits until a column is looked at."""

    __slots__ = ("_archive", "_decoded", "_names", "_rows", "_table")

    def __init__(self, archive: PackArchive, table: str) -> None:
        members = (name.partition("/") for name in archive.names)
        names = (column for owner, _, column in members if owner == table)
        self._archive = archive
        self._table = table
        self._names = [n for n in names if not n.endswith(pack_format.VALUES_SUFFIX)]
        self._decoded: dict[str, Column] = {}
        self._rows: int | None = None

    def __getitem__(self, column: str) -> Column:
        if column not in self._decoded:
            if column not in self._names:
                raise KeyError(column)
            self._decoded[column] = self._decode(f"{self._table}/{column}")
        return self._decoded[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _decode(self, member: str) -> Column:
        packed: Column = self._archive.integers(member)
        if self._rows is None:
            self._rows = packed.size
        values = member + pack_format.VALUES_SUFFIX
        if values in self._archive.names:
            words = self._archive.words(values)
            sound = packed.max(initial=0) < words.size or not packed.size
            decoded: Column = words[packed] if sound else words
        else:
            decoded = packed.astype(np.int64)
            least = 0 if member.rpartition("/")[2] in _MAY_BE_ZERO else 1
            sound = not decoded.size or decoded.min() >= least
        if not sound or packed.size != self._rows:
            raise ConfigError(
                f"{self._archive.file}: {clip(member)}: damaged; allowed: positive"
                " numbers or known words, as many as in the table's other columns"
            )
        decoded.flags.writeable = False
        return decoded


def load_tables(
    gpu: str, data_dir: Path = DATA_DIR, framework: str = "vllm"
) -> KernelTables:
    """The packed kernel timings of a GPU, checked against their provenance.

    Args:
        gpu: catalogue name ("h100_sxm").
        data_dir: folder of the packs; the ones shipped by default.
        framework: whose kernels, "vllm", "sglang" or "trtllm".

    Raises:
        ConfigError: if the GPU is not profiled, or a file is missing or corrupt.
    """
    packs = read_provenance(data_dir)
    entry = _entry(packs, gpu, framework, data_dir)
    path = data_dir / entry["file"]
    content = read_bytes(path)
    if pack_format.sha256(content) != entry["sha256"]:
        raise ConfigError(
            f"{one_line(str(path))}: corrupt: its SHA-256 is not the one in"
            f" {pack_format.PROVENANCE}; reinstall, or rebuild with python -m"
            " calibration.build_pack or servescope calibrate import"
        )
    tables = KernelTables(
        gpu, framework, content, MappingProxyType(entry["tables"]), data_dir
    )
    if data_dir != DATA_DIR:  # the shipped ones are checked by the tests
        for name in tables.names:
            check_table(entry["file"], name, tables.columns(name))
    return tables


def _entry(packs: Mapping[str, Any], gpu: str, framework: str, data_dir: Path) -> Any:
    known = packs.get(pack_name(gpu, framework))
    if known is not None:
        return known
    frameworks = {e["framework"] for e in packs.values() if e["gpu"] == gpu} - {DEEPEP}
    if frameworks and framework in FRAMEWORKS:
        folder = "the shipped set" if data_dir == DATA_DIR else one_line(str(data_dir))
        raise ConfigError(
            f"{gpu}: no kernel tables of {framework} in {folder} (there are:"
            f" {', '.join(sorted(frameworks))}); get them with: servescope calibrate"
            f" import WHEEL --gpu {gpu} --backend {framework}, then set"
            " calibration.data_dir"
        )
    if frameworks:
        raise unknown_name(f"framework profiled on {gpu}", framework, frameworks)
    raise unknown_name("profiled GPU", gpu, {e["gpu"] for e in packs.values()})
