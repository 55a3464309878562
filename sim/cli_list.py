"""The commands ``servescope list`` and ``servescope schema``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from calibration.engine_profiles import CONFIDENCES, engine_profile, profile_names
from calibration.hardware import gpu, gpu_names
from calibration.models import model, model_names
from sim.cli_output import print_json
from sim.config_text import json_schema
from sim.placement import PLACEMENTS
from sim.queues import QUEUES
from sim.routers import ROUTERS
from sim.schedulers import SCHEDULERS
from workloads.datasets import DATASETS
from workloads.routing.presets import preset, preset_names

Entry = dict[str, Any]
"""Facts of one name, the name first."""


def list_command(kind: str | None, *, as_json: bool) -> None:
    """Print the names of one kind, or of all kinds."""
    kinds = list(_LISTS) if kind is None else [kind]
    entries = {name: _LISTS[name]() for name in kinds}
    if as_json:
        print_json(entries)
        return
    console = Console()
    for name, rows in entries.items():
        console.print(_table(name, rows))


def schema_command() -> None:
    """Print the JSON Schema of a configuration."""
    print_json(json_schema())


def _table(kind: str, rows: list[Entry]) -> Table:
    table = Table(title=kind, title_justify="left", box=None, pad_edge=False)
    for key in rows[0]:
        table.add_column(key, overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    return table


def _text(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(value)
    if isinstance(value, dict):
        return "; ".join(f"{k}: {', '.join(v)}" for k, v in value.items() if v)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _models() -> list[Entry]:
    shapes = [model(name) for name in model_names()]
    return [
        {
            "name": shape.name,
            "dtype": shape.native_dtype,
            "parameters": shape.params().total,
            "layers": shape.num_layers,
            "experts": shape.num_experts,
            "top_k": shape.top_k,
        }
        for shape in shapes
    ]


def _gpus() -> list[Entry]:
    gpus = [gpu(name) for name in gpu_names()]
    return [
        {
            "name": device.name,
            "hbm_bytes": device.hbm_bytes,
            "hbm_bytes_per_s": device.hbm_bandwidth_bytes_per_s,
            "bf16_flops_per_s": device.bf16_flops_per_s,
            "cap_w": device.power.cap_w,
        }
        for device in gpus
    ]


def _profiles() -> list[Entry]:
    """Constants by confidence; ``calibrate show`` has their values and sources."""
    profiles = [engine_profile(name) for name in profile_names()]
    return [
        {
            "name": profile.name,
            "description": profile.description,
            "confidence": {
                confidence: [
                    e.constant for e in profile.evidence if e.confidence == confidence
                ]
                for confidence in CONFIDENCES
            },
            "fitted_to": [*profile.fitted_to] or [f"nothing: {profile.note}"],
        }
        for profile in profiles
    ]


def _placements() -> list[Entry]:
    return [{"name": n, "description": s.summary} for n, s in PLACEMENTS.items()]


def _routing() -> list[Entry]:
    known = [preset(name) for name in preset_names()]
    return [
        {
            "name": p.name,
            "layers": p.layers,
            "experts": p.experts,
            "top_k": p.top_k,
            "domains": ", ".join(p.domain_alpha),
        }
        for p in known
    ]


def _names(registry: Mapping[str, object]) -> Callable[[], list[Entry]]:
    return lambda: [{"name": name} for name in registry]


_LISTS: Final[Mapping[str, Callable[[], list[Entry]]]] = MappingProxyType(
    {
        "models": _models,
        "gpus": _gpus,
        "datasets": _names(DATASETS),
        "schedulers": _names(SCHEDULERS),
        "profiles": _profiles,
        "routers": _names(ROUTERS),
        "queues": _names(QUEUES),
        "placements": _placements,
        "routing": _routing,
    }
)
