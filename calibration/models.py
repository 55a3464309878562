"""The model catalogue: shapes by name, or from any Hugging Face ``config.json``.

The catalogue, ``data/models.toml``, holds the facts of each model's published
configuration under the keys of Hugging Face, and is read by the same code. A model is
published in several versions, which are the same network: those of an entry's
``aliases`` differ in nothing that is simulated, those of its ``variants`` in the keys
given there (another weight format, a longer context).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
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
    """The full names of the catalogue's models, without aliases and variants."""
    return tuple(_tables())


def model(name_or_path: str) -> ModelShape:
    """The shape of a model.

    Args:
        name_or_path: a catalogue name in any case ("Qwen/Qwen3-30B-A3B"), its last
            part ("qwen3-30b-a3b"), another version's such as "-Instruct" or "-FP8",
            or the path of a Hugging Face ``config.json`` or of the folder that holds
            it.

    Returns:
        The shape; that of another version has the name of its model.

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
        for names, facts in _versions(name, values):
            shape = parse_hf_config(facts, name, _CATALOGUE.name)
            for known in names:
                shapes[known.casefold()] = shape
                shapes[known.rpartition("/")[2].casefold()] = shape
    return MappingProxyType(shapes)


def _versions(
    name: str, values: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """The names and facts of an entry's versions."""
    yield (name, *values["aliases"]), values
    for variant in values.get("variants", ()):
        yield tuple(variant["names"]), {**values, **variant}
