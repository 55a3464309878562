"""From a wheel of aiconfigurator-core to one pack: any GPU, framework and version."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from calibration import pack_format
from calibration.lookup import unknown_name
from calibration.pack_set import Pack
from calibration.pack_sources import (
    FRAMEWORKS,
    WHEEL_NAMES,
    Collection,
    sources,
    wheel_folder,
)
from calibration.pack_table import pack_tables
from calibration.table_source import CORE
from calibration.wheels import Wheel
from sim.errors import ConfigError

_DATA: Final = "aiconfigurator_core/systems/data/"
_SUFFIX: Final = "_perf.parquet"
# A model cannot be simulated without these.
_NEEDED: Final = frozenset({"prefill_attention", "decode_attention", "gemm"})
_NCCL: Final = "nccl"

Versions = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Imported:
    """A pack and what there is to say about it, one note a line."""

    pack: Pack
    notes: tuple[str, ...]


def import_wheel(
    wheel: Wheel,
    gpu: str,
    framework: str,
    version: str | None = None,
    *,
    everything: bool = False,
) -> Imported:
    """Pack the tables of one GPU and framework.

    A table that the version lacks is taken from the next older version that has it,
    else from the oldest; the notes say so.

    Args:
        wheel: of aiconfigurator-core.
        gpu: catalogue name, or the name of another GPU in the wheel.
        framework: "vllm", "sglang" or "trtllm".
        version: of the framework; the newest with GEMM timings if None.
        everything: keep every head and MoE shape, not the catalogue's only.

    Raises:
        ConfigError: if the wheel has no such GPU, framework or version, lacks a table
            nothing can be simulated without, or is damaged.
    """
    versions = _versions(wheel, gpu, framework)
    chosen = _chosen(wheel, gpu, framework, versions, version)
    nccl = sorted(_kinds(wheel, gpu, _NCCL).get("nccl", []), key=version_key)
    older = {
        kind: _nearest(known, chosen)
        for kind, known in versions.items()
        if chosen not in known
    }
    collection = Collection(
        gpu, framework, chosen, nccl[-1] if nccl else None, older, everything
    )
    wanted = (
        replace(source, optional=source.table not in _NEEDED)
        for source in sources(collection)
        if source.package == CORE
    )
    members, tables, absent = pack_tables({CORE: wheel}, wanted)
    notes = [
        f"{name}: rows of {framework} {entry['framework_version']}"
        for name, entry in tables.items()
        if name != _NCCL and entry["framework_version"] != chosen
    ]
    if absent:
        notes.append(f"not in {framework} {chosen}: {', '.join(absent)}")
    content = pack_format.npz_bytes(members)
    return Imported(Pack(gpu, framework, content, tables), tuple(notes))


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts version words as PEP 440 does: dev and rc before a release, post after."""
    parts = [
        (2, int(word), "")
        if word.isdecimal()
        else (3 if word == "post" else 0, 0, word)
        for word in re.findall(r"[0-9]+|[a-z]+", version.casefold())
    ]
    return (*parts, (1, 0, ""))


def _nearest(known: list[str], chosen: str) -> str:
    ordered = sorted(known, key=version_key)
    older = [v for v in ordered if version_key(v) < version_key(chosen)]
    return older[-1] if older else ordered[0]


def _chosen(
    wheel: Wheel, gpu: str, framework: str, versions: Versions, version: str | None
) -> str:
    if version is None:
        if "gemm" not in versions:
            raise ConfigError(f"{wheel.name}: no gemm table of {framework} on {gpu}")
        return max(versions["gemm"], key=version_key)
    known = {v for found in versions.values() for v in found}
    if version not in known:
        raise unknown_name(f"version of {framework} on {gpu}", version, known)
    return version


def _versions(wheel: Wheel, gpu: str, framework: str) -> Versions:
    """Kind of table -> versions of the framework that have it."""
    if framework not in FRAMEWORKS:
        raise unknown_name("framework", framework, FRAMEWORKS)
    folders = {path.removeprefix(_DATA).split("/")[0] for path in _tables(wheel)}
    catalogue = {wheel_name: name for name, wheel_name in WHEEL_NAMES.items()}
    gpus = {catalogue.get(folder, folder) for folder in folders}
    if gpu not in gpus:
        raise unknown_name(f"GPU in {wheel.name}", gpu, gpus)
    versions = _kinds(wheel, gpu, framework)
    if not versions:
        there = {f for f in FRAMEWORKS if _kinds(wheel, gpu, f)}
        raise unknown_name(f"framework on {gpu} in {wheel.name}", framework, there)
    return versions


def _kinds(wheel: Wheel, gpu: str, framework: str) -> Versions:
    versions: Versions = {}
    folder = f"{wheel_folder(gpu)}/"
    for path in _tables(wheel):
        if path.startswith(folder):
            _, found, version, file = path.removeprefix(folder).split("/")
            if found == framework:
                versions.setdefault(file.removesuffix(_SUFFIX), []).append(version)
    return versions


def _tables(wheel: Wheel) -> Iterator[str]:
    for path in wheel.members:
        nested = path.startswith(_DATA) and path.endswith(_SUFFIX)
        if nested and path.removeprefix(_DATA).count("/") == 4:
            yield path
