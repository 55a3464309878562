"""What is fuzzed: each target damages a valid input, reads it and checks the outcome.

A target may raise ConfigError and nothing else; what it accepts must be sound.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from calibration.anchor_file import HOST_BOUNDS, KERNEL_BOUNDS, read_anchor
from calibration.hf_config import load_hf_config
from calibration.import_csv import import_csv
from calibration.pack_format import npz_bytes
from calibration.profiler.columns import kernel
from calibration.profiler.journal import Entry, Journal
from calibration.roofline_set import ROOFLINES
from calibration.tables import KernelTables
from sim.anchor import read_steps
from sim.build import build_machine, check_registered
from sim.config import SECTIONS, Config
from sim.config_file import load_config
from sim.config_text import config_toml
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.runner import prepare, run_prepared
from sim.schedulers import SCHEDULERS
from tests.fuzz import mutate, samples
from workloads.outages import read_outages
from workloads.request_logs import read_request_log
from workloads.routing.importers import read_routing
from workloads.routing.importers.options import ImportOptions
from workloads.traces import read_trace

Target = Callable[[Random, Path], None]

KEYS = [f"{s}.{name}" for s, model in SECTIONS.items() for name in model.model_fields]


def config(random: Random, folder: Path) -> None:
    """A TOML or JSON configuration, sometimes with --set, names checked."""
    tree = json.loads(Config().resolved().model_dump_json())
    if random.random() < 0.5:
        path = folder / "config.toml"
        content = config_toml(Config()).encode()
        path.write_bytes(mutate.toml_of(random, content))
    else:
        path = folder / "config.json"
        path.write_bytes(mutate.json_of(random, tree))
    overrides = [_override(random) for _ in range(random.choice((0, 0, 1, 2)))]
    loaded = load_config(path, overrides, check=check_registered)
    again = folder / "again.toml"
    again.write_text(config_toml(loaded), encoding="utf-8")
    assert load_config(again) == loaded.resolved()


def override(random: Random, _folder: Path) -> None:
    """Nothing but --set."""
    count = random.randint(1, 3)
    load_config(None, [_override(random) for _ in range(count)], check=check_registered)


def _override(random: Random) -> str:
    key = random.choice(("seed", *KEYS, random.choice(mutate.WORDS)))
    value = random.choice((*mutate.WORDS, *map(str, mutate.VALUES)))
    return f"{key}{random.choice(('=', '=', '=', ' = ', ''))}{value}"


def trace(random: Random, folder: Path) -> None:
    """A trace, plain or packed."""
    path = _table(random, folder, samples.TRACE)
    read = read_trace(str(path))
    assert read.prompt_tokens.min() >= 1
    assert read.output_tokens.min() >= 1
    assert read.prompt_tokens.size == read.output_tokens.size
    if read.arrival_ns is not None:
        assert (np.diff(read.arrival_ns) >= 0).all()
        assert read.arrival_ns.min() >= 0


def outages(random: Random, folder: Path) -> None:
    """Failures and drains of two replicas."""
    for own in read_outages(str(_table(random, folder, samples.OUTAGES)), 2).of:
        times = [t for outage in own for t in (outage.start_ns, outage.end_ns)]
        assert all(a < b for a, b in pairwise([-1, *times]))


def mooncake(random: Random, folder: Path) -> None:
    """A trace with hash_ids, plain or packed."""
    lines = [json.dumps(row).encode() for row in samples.MOONCAKE]
    at = random.randrange(len(lines))
    lines[at] = mutate.json_of(random, samples.MOONCAKE[at])
    damaged = random.choice((b"\n", b"\r\n", b"\n\n")).join(lines)
    packed = random.random() < 0.15
    path = folder / ("trace.jsonl.gz" if packed else "trace.jsonl")
    path.write_bytes(mutate.packed_of(random, damaged) if packed else damaged)
    read = read_trace(str(path))
    assert read.arrival_ns is not None
    assert (np.diff(read.arrival_ns) >= 0).all()
    assert read.prefixes is not None
    assert len(read.prefixes) == read.prompt_tokens.size
    for prefix, tokens in zip(read.prefixes, read.prompt_tokens, strict=True):
        assert prefix.ends[-1] == tokens


def request_log(random: Random, folder: Path) -> None:
    """A per-request log of either format, plain or packed."""
    content = random.choice((samples.SERVING_SIM, samples.LLM_D))
    for run in read_request_log(_table(random, folder, content)):
        assert (run.ttft_ms >= 0).all()
        assert not (run.tpot_ms < 0).any()
        assert run.workload.requests[0].arrival_ns == 0


def steps(random: Random, folder: Path) -> None:
    """Measured steps to anchor a profile to."""
    for step in read_steps(_table(random, folder, samples.STEPS)):
        assert 0 < step.measured_ms <= 1e6
        assert step.decoding + step.prefill_tokens > 0


def kernels(random: Random, folder: Path) -> None:
    """Kernel timings to import; what is accepted must come back from its pack."""
    path = _table(random, folder, samples.kernels_csv())
    pack = import_csv(path, "h100_sxm", "vllm")
    tables = KernelTables("h100_sxm", "vllm", pack.content, pack.tables, folder)
    for name in tables.names:
        columns = tables.columns(name)
        assert {len(columns[c]) for c in columns} == {pack.tables[name]["rows"]}


def _table(random: Random, folder: Path, content: bytes) -> Path:
    damaged = mutate.csv_of(random, content)
    packed = random.random() < 0.15
    path = folder / ("table.csv.gz" if packed else "table.csv")
    path.write_bytes(mutate.packed_of(random, damaged) if packed else damaged)
    return path


def model(random: Random, folder: Path) -> None:
    """A Hugging Face config.json."""
    path = folder / "config.json"
    tree = random.choice((samples.MODEL, samples.MOE_MODEL))
    path.write_bytes(mutate.json_of(random, tree))
    shape = load_hf_config(path)
    assert shape.params().total > 0
    assert len(shape.layer_windows) == shape.num_layers


def anchor(random: Random, folder: Path) -> None:
    """An anchored profile."""
    path = folder / "mine.toml"
    path.write_bytes(mutate.toml_of(random, samples.ANCHOR))
    read = read_anchor(path)
    assert KERNEL_BOUNDS[0] <= read.kernel_factor <= KERNEL_BOUNDS[1]
    assert HOST_BOUNDS[0] <= read.host_factor <= HOST_BOUNDS[1]
    path.write_text(read.toml(), encoding="utf-8")
    assert read_anchor(path).kernel_factor == read.kernel_factor


def journal(random: Random, folder: Path) -> None:
    """The journal of a profiling session."""
    path = folder / "journal.jsonl"
    path.unlink(missing_ok=True)
    with Journal(path, {"device": "x"}, "2026-01-01", writable=True) as whole:
        gemm = kernel("gemm", dtype="bfloat16", n=1, k=1, m=1)
        whole.add(Entry(gemm, failed="why"))
    lines = path.read_bytes().splitlines(keepends=True)
    at = random.randrange(len(lines))
    lines[at] = mutate.json_of(random, json.loads(lines[at])) + b"\n"
    path.write_bytes(b"".join(lines))
    with Journal(path, {"device": "x"}, "2026-01-01", writable=True) as damaged:
        assert all(hash(k) is not None for k in damaged.entries)


def pack(random: Random, folder: Path) -> None:
    """A calibration set, damaged under a checksum that fits, and a machine from it."""
    for name, content in samples.calibration_set().items():
        (folder / name).write_bytes(content)
    random.choice((_damage_arrays, _damage_arrays, _damage_json))(random, folder)
    tree = random.choice((samples.MODEL, samples.MOE_MODEL))
    (folder / "model.json").write_text(json.dumps(tree))
    flags: dict[str, object] = {
        "model.name": str(folder / "model.json"),
        "calibration.data_dir": str(folder),
        "parallel.tensor_parallel_size": 1,
        "engine.max_model_len": 1000,
    }
    machine = build_machine(load_config(None, (), flags))
    for decoding, tokens in ((1, 0), (0, 100), (40, 3000)):
        chunks = (PrefillChunk(0, 64, tokens),) if tokens else ()
        plan = StepPlan((LayerSpan(0, machine.model.num_layers, chunks),))
        cost = machine.pricer.price(plan, decoding, 100 * decoding)
        assert cost.duration_ns > 0
        assert 0 < cost.energy_j < math.inf


def _damage_arrays(random: Random, folder: Path) -> None:
    """Change members of the archive, or its bytes, and its recorded checksum."""
    path = folder / "h100_sxm.npz"
    with np.load(path, allow_pickle=False) as archive:
        members = {name: archive[name] for name in archive.files}
    for _ in range(random.randint(1, 2)):
        random.choice(_ARRAY)(random, members)
    content = npz_bytes(members)
    if random.random() < 0.3:
        content = mutate.bytes_of(random, content)
    path.write_bytes(content)
    place = folder / "provenance.json"
    document = json.loads(place.read_text())
    entry = document["packs"]["h100_sxm"]
    entry["sha256"] = hashlib.sha256(content).hexdigest()
    place.write_text(json.dumps(document))


def _damage_json(random: Random, folder: Path) -> None:
    path = folder / random.choice(("provenance.json", ROOFLINES))
    path.write_bytes(mutate.json_of(random, json.loads(path.read_text())))


def _dtype(random: Random, members: dict[str, Any]) -> None:
    name = random.choice(list(members))
    numbers = members[name].dtype.kind == "u"
    kinds = ("<f8", "<i8", "<u8", ">u4", "?", "<c16", "<U4", "<U99", "S3")
    members[name] = members[name].astype(random.choice(kinds[0 if numbers else 6 :]))


def _value(random: Random, members: dict[str, Any]) -> None:
    name = random.choice([n for n in members if members[n].dtype.kind == "u"])
    array = np.atleast_1d(members[name])
    array = array.astype(random.choice(("<u8", array.dtype)))
    largest = int(np.iinfo(array.dtype).max)
    array[random.randrange(array.size)] = random.choice((0, 1, largest, largest // 2))
    members[name] = array


def _length(random: Random, members: dict[str, Any]) -> None:
    name = random.choice(list(members))
    array = np.atleast_1d(members[name])
    members[name] = random.choice(
        (array[:-1], array[:0], np.concatenate([array, array]), array[::-1])
    )


def _shape(random: Random, members: dict[str, Any]) -> None:
    name = random.choice(list(members))
    array = np.atleast_1d(members[name])
    one = array[0] if array.size else array
    members[name] = random.choice((array.reshape(1, -1), one, array.reshape(-1, 1)))


def _name(random: Random, members: dict[str, Any]) -> None:
    name = random.choice(list(members))
    array = members.pop(name)
    new = random.choice(("", "x", f"{name}.values", "../x", "gemm/", name.upper()))
    if random.random() < 0.7:
        members[new] = array


def _rows(random: Random, members: dict[str, Any]) -> None:
    """Fewer or repeated rows, alike in all columns of a table."""
    table = random.choice(sorted({name.partition("/")[0] for name in members}))
    names = [
        name
        for name in members
        if name.startswith(f"{table}/") and not name.endswith(".values")
    ]
    size = min(np.size(members[name]) for name in names) if names else 0
    if size:
        keep = sorted(random.choices(range(size), k=random.randint(1, size)))
        if random.random() < 0.8:
            keep = sorted(set(keep))
        for name in names:
            members[name] = np.atleast_1d(members[name]).ravel()[keep]


def routing(random: Random, folder: Path) -> None:
    """Routing statistics or counts in any format that is read."""
    name, content = random.choice(list(samples.ROUTING.items()))
    path = folder / name
    if name.endswith(".npz"):
        members = {key: np.array(value) for key, value in content.items()}
        for _ in range(random.randint(0, 2)):
            if members:
                random.choice((_dtype, _length, _shape, _name))(random, members)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **members)
        damaged = buffer.getvalue()
        path.write_bytes(
            mutate.bytes_of(random, damaged) if random.random() < 0.3 else damaged
        )
    elif isinstance(content, bytes):
        path.write_bytes(mutate.csv_of(random, content))
    else:
        path.write_bytes(mutate.json_of(random, content))
    options = ImportOptions(top_k=2, model="mixtral-8x7b", gpus=2)
    stats = read_routing(path, options)
    assert np.isfinite(stats.load).all()
    assert np.abs(stats.load.sum(axis=1) - 1.0).max() < 1e-9
    assert 1 <= stats.top_k <= stats.num_experts
    if stats.transition is not None:
        assert np.isfinite(stats.transition).all()


def run(random: Random, folder: Path) -> None:
    """A whole run of a configuration at the edges of what is allowed."""
    overrides = [f"{key}={random.choice(SMALL[key])}" for key in SMALL]
    if random.random() < 0.5:
        path = folder / "trace.csv"
        path.write_bytes(samples.TRACE)
        overrides.append(f"workload.path={path}")
    edges = random.sample(list(EDGES), random.randint(0, 4))
    overrides += [f"{key}={random.choice(EDGES[key])}" for key in edges]
    prepared = prepare(load_config(None, overrides, check=check_registered))
    summary = run_prepared(prepared, check=True).summary
    json.dumps(summary)
    assert summary["completed"] >= 0


SMALL: Mapping[str, tuple[Any, ...]] = {
    "model.name": ("Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B"),
    "engine.scheduler": tuple(sorted(SCHEDULERS)),
    "workload.dataset": ("random",),
    "workload.num_requests": (1, 3),
    "workload.random_input_len": (1, 700),
    "workload.random_output_len": (1, 6),
    "engine.max_model_len": (100, 2000),
}
EDGES: Mapping[str, tuple[Any, ...]] = {
    "seed": (0, 2**63 - 1),
    "cluster.gpu": ("a100_sxm", "h200", "b200"),
    "cluster.nodes": (1, 2, 1_000_000),
    "cluster.gpus_per_node": (1, 8, 1_000_000),
    "cluster.hbm_bandwidth_scale": (5e-324, 1e-300, 0.01, 100),
    "cluster.flops_scale": (5e-324, 1e-300, 0.01, 100),
    "cluster.link_bandwidth_scale": (5e-324, 1e-300, 0.01, 100),
    "parallel.tensor_parallel_size": (1, 2, 4, 8, 1_000_000),
    "parallel.expert_parallel_size": (1, 2, 8),
    "parallel.replicas": (1, 2, 50, 200),
    "parallel.router": ("round-robin", "least-outstanding-requests"),
    "engine.max_num_batched_tokens": (1, 2, 100, 10_000_000),
    "engine.num_layer_groups": (1, 3, 1_000_000),
    "engine.preemption_mode": ("recompute", "swap"),
    "engine.swap_space": (5e-324, 0.01, 1e6),
    "engine.prefill_sm_share": (0.01, 0.5, 0.99),
    "engine.layer_group_rule": ("code", "paper"),
    "engine.max_num_seqs": (1, 2, 1_000_000),
    "engine.max_model_len": (1, 2, 10_000_000),
    "engine.block_size": (1, 7, 8192),
    "engine.gpu_memory_utilization": (5e-324, 0.5, 1),
    "engine.kv_cache_tokens": (1, 2000, 10**12),
    "engine.kv_cache_dtype": ("fp8",),
    "engine.fidelity": ("kernel",),
    "engine.overlap": ("tp-all-reduce", "two-batch"),
    "model.dtype": ("bfloat16", "fp8", "mxfp4"),
    "moe.routing": ("uniform",),
    "moe.prompt_skew": (0, 10),
    "moe.decode_skew": (0, 10),
    "calibration.profile": ("layered-prefill-v1", "layered-prefill-v2"),
    "workload.request_rate": (1e-3, 1e9, "inf"),
    "workload.max_concurrency": (1, 10_000_000),
    "workload.burstiness": (1e-3, 1e6),
    "workload.num_requests": (2, 4),
    "workload.duration_s": (1e-9, 1.5, 1e9),
    "workload.random_input_len": (10_000_000, 1),
    "workload.random_output_len": (10_000_000, 1),
    "workload.random_range_ratio": (0, 0.999),
    "slo.ttft_ms": (1e-300, 1e9, "none"),
    "cost.usd_per_gpu_hour": (0, 1e6),
}

_ARRAY: tuple[Callable[[Random, dict[str, Any]], None], ...] = (
    *(_dtype, _value, _value, _length, _shape, _name, _rows, _rows),
)

TARGETS: Mapping[str, tuple[Target, int]] = {
    "config": (config, 20),
    "override": (override, 15),
    "trace": (trace, 20),
    "mooncake": (mooncake, 10),
    "outages": (outages, 6),
    "request-log": (request_log, 15),
    "steps": (steps, 6),
    "kernels": (kernels, 8),
    "model": (model, 15),
    "anchor": (anchor, 10),
    "journal": (journal, 3),
    "pack": (pack, 3),
    "routing": (routing, 8),
    "run": (run, 1),
}
"""Target by name, with its share of the inputs."""
