"""The model catalogue: shapes by name, or from any Hugging Face ``config.json``.

The catalogue, ``data/models.toml``, holds the facts of each model's published
configuration under the keys of Hugging Face, and is read by the same code.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from calibration.hf_config import load_hf_config, parse_hf_config
from calibration.lookup import unknown_name
from calibration.model_shape import ByComponent, ModelShape
from sim.errors import ConfigError

__all__ = ["ByComponent", "ModelShape", "model", "model_names"]

_CATALOGUE: Final = Path(__file__).parent / "data" / "models.toml"


def model_names() -> tuple[str, ...]:
    """The full names of the catalogue's models, without aliases."""
    return tuple(_tables())


def model(name_or_path: str) -> ModelShape:
    """The shape of a model.

    Args:
        name_or_path: a catalogue name in any case ("Qwen/Qwen3-30B-A3B"), its last
            part ("qwen3-30b-a3b"), an alias such as the "-Instruct" version, or the
            path of a Hugging Face ``config.json`` or of the folder that holds it.

    Raises:
        ConfigError: if there is no such model or file, or its architecture is not one
            the simulator can cost.
    """
    known = _by_key().get(name_or_path.strip().casefold())
    if known is not None:
        return known
    path = Path(name_or_path)
    if path.suffix == ".json" or (name_or_path and _exists(path)):
        return load_hf_config(path)
    error = unknown_name("model", name_or_path, model_names())
    raise ConfigError(f"{error}, or the path of a Hugging Face config.json")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, or a null character in it
        return False


@cache
def _tables() -> Mapping[str, Any]:
    return MappingProxyType(tomllib.loads(_CATALOGUE.read_text(encoding="utf-8")))


@cache
def _by_key() -> Mapping[str, ModelShape]:
    shapes: dict[str, ModelShape] = {}
    for name, values in _tables().items():
        shape = parse_hf_config(values, name, _CATALOGUE.name)
        for known in (name, *values["aliases"]):
            shapes[known.casefold()] = shape
            shapes[known.rpartition("/")[2].casefold()] = shape
    return MappingProxyType(shapes)
