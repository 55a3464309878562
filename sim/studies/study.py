"""Reading STUDY.toml: a configuration, and what to vary in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sim.config import SECTIONS, Config
from sim.config_errors import ConfigKeyError, one_line, one_of
from sim.config_file import Layer, file_layer, layered_config, nested, override_layers
from sim.config_pools import POOLS
from sim.config_syntax import read_table
from sim.errors import ConfigError
from sim.studies.axes import Axis, parse_axis
from sim.studies.design import DESIGNS, MAX_POINTS, SAMPLED, Settings

SEED: Final = "seed"
MAX_REPLICATIONS: Final = 1000
_TOP_KEYS: Final = ("base", "config", "replications", "vary")
_OPTIONS: Final = ("design", "samples", "sample_seed")
_MAX_SEED: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Study:
    """A configuration and the settings to run it with.

    Attributes:
        layers: The configuration that is varied.
        settings: One per point and replication, in order.
        varied: Keys that any point varies, in order of appearance.
        source: What errors call the study.
        folder: Where relative paths of its values start.
    """

    layers: Sequence[Layer]
    settings: Sequence[Settings]
    varied: tuple[str, ...]
    source: str = "study"
    folder: Path = Path()

    def config(
        self, settings: Settings, check: Callable[[Config], None] | None = None
    ) -> Config:
        """The configuration of one point.

        Raises:
            ConfigError: If the settings are not allowed.
        """
        layer = Layer(nested(settings), self.source, self.folder)
        return layered_config([*self.layers, layer], check)


def read_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file.

    It holds ``base`` (a configuration file beside it) and ``config`` (its keys, over
    the file's), both optional, ``replications`` (seeds), and one or more ``[[vary]]``
    blocks: keys with values or ranges, and a ``design``. The points are those of all
    blocks, one after the other.

    Args:
        path: TOML or JSON.
        overrides: ``key=value`` texts of ``--set``, over the configuration.

    Raises:
        ConfigError: One line with file, key, value and what is allowed.
    """
    source, table = one_line(str(path)), read_table(path)
    try:
        return _study(table, source, path.parent, overrides)
    except ConfigKeyError as problem:
        raise ConfigError(f"{source}: {problem}") from None


def make_study(
    vary: Sequence[Mapping[str, Any]] | Mapping[str, Any],
    layers: Sequence[Layer] = (),
    replications: int = 1,
) -> Study:
    """A study from Python values instead of a file.

    Args:
        vary: One block or several, each a mapping of dotted keys to values as in a
            ``[[vary]]`` block.
        layers: The configuration that is varied.
        replications: Seeds per point.

    Raises:
        ConfigKeyError: If a block is not allowed.
    """
    blocks = [vary] if isinstance(vary, Mapping) else list(vary)
    return _expand(blocks, layers, replications, "study", Path())


@dataclass(frozen=True, slots=True)
class Space:
    """What an optimiser may choose from.

    Attributes:
        study: The configuration that is varied, without settings.
        axes: Values or range of each key.
    """

    study: Study
    axes: Mapping[str, Axis]


def read_space(path: Path, overrides: Sequence[str] = ()) -> Space:
    """Read a study file as a space: one ``[[vary]]`` block, whose design is not used.

    Raises:
        ConfigError: As :func:`read_study`, or if there is not just one block.
    """
    source, table = one_line(str(path)), read_table(path)
    blocks = table.pop("vary", [])
    try:
        if not (isinstance(blocks, list) and len(blocks) == 1):
            count = len(blocks) if isinstance(blocks, list) else 0
            raise ConfigKeyError("vary", count, "a space is one block [[vary]]")
        study = _study(table, source, path.parent, overrides)
        return Space(replace(study, varied=tuple(axes := _axes(blocks[0]))), axes)
    except ConfigKeyError as problem:
        raise ConfigError(f"{source}: {problem}") from None


def _study(
    table: Mapping[str, Any], source: str, folder: Path, overrides: Sequence[str]
) -> Study:
    for key, value in table.items():
        if key not in _TOP_KEYS:
            raise ConfigKeyError(key, value, one_of(key, _TOP_KEYS))
    layers = []
    if "base" in table:
        base = table["base"]
        if not isinstance(base, str):
            raise ConfigKeyError("base", base, "must be the path of a configuration")
        layers.append(file_layer(folder / base))
    inline = table.get("config", {})
    if not isinstance(inline, dict):
        raise ConfigKeyError("config", inline, "must be a table [config]")
    layers += [Layer(inline, source, folder), *override_layers(overrides)]
    blocks = table.get("vary", [])
    if not isinstance(blocks, list) or not all(isinstance(b, dict) for b in blocks):
        raise ConfigKeyError("vary", blocks, "must be blocks [[vary]]")
    return _expand(blocks, layers, table.get("replications", 1), source, folder)


def _expand(
    blocks: Sequence[Mapping[str, Any]],
    layers: Sequence[Layer],
    replications: object,
    source: str,
    folder: Path,
) -> Study:
    if type(replications) is not int or not 1 <= replications <= MAX_REPLICATIONS:
        raise ConfigKeyError(
            "replications",
            replications,
            f"must be an integer in 1..{MAX_REPLICATIONS}",
        )
    settings = [point for block in blocks for point in _block_points(block)]
    settings = settings or [{}]
    if len(settings) * replications > MAX_POINTS:
        count = len(settings) * replications
        raise ConfigKeyError("vary", count, f"must give at most {MAX_POINTS} points")
    varied = tuple(dict.fromkeys(key for point in settings for key in point))
    if replications > 1:
        if SEED in varied:
            raise ConfigKeyError(
                "replications", replications, "must be 1 where seed is varied", (SEED,)
            )
        first = layered_config(layers).seed
        settings = [
            {**point, SEED: min(first + k, _MAX_SEED)}
            for point in settings
            for k in range(replications)
        ]
        varied = (*varied, SEED)
    return Study(layers, settings, varied, source, folder)


def _block_points(block: Mapping[str, Any]) -> list[Settings]:
    design = block.get("design", "grid")
    if design not in DESIGNS:
        raise ConfigKeyError("vary.design", design, one_of(design, DESIGNS))
    samples, seed = block.get("samples", 0), block.get("sample_seed", 0)
    if design in SAMPLED:
        if type(samples) is not int or not 1 <= samples <= MAX_POINTS:
            raise ConfigKeyError(
                "vary.samples", samples, f"must be an integer in 1..{MAX_POINTS}"
            )
        if type(seed) is not int or not 0 <= seed <= _MAX_SEED:
            raise ConfigKeyError("vary.sample_seed", seed, "must be an integer >= 0")
    elif given := [key for key in _OPTIONS[1:] if key in block]:
        allowed = f'goes with design = "{SAMPLED[0]}" or "{SAMPLED[1]}" only'
        raise ConfigKeyError(f"vary.{given[0]}", block[given[0]], allowed)
    axes = _axes(block)
    if not axes:
        raise ConfigKeyError("vary", block, "must name at least one key to vary")
    return DESIGNS[design](axes, samples, seed)


def _axes(block: Mapping[str, Any]) -> dict[str, Axis]:
    """Axes by dotted key; sections may be tables or part of a quoted key."""
    axes: dict[str, Axis] = {}
    for key, value in block.items():
        if key in _OPTIONS:
            continue
        if key == POOLS and isinstance(value, Mapping):
            for name, item in value.items():
                pool = f"{POOLS}.{name}"
                if not isinstance(item, Mapping):
                    axes[pool] = parse_axis(pool, item)
                    continue
                for own, values in item.items():
                    axes[f"{pool}.{own}"] = parse_axis(f"{pool}.{own}", values)
        elif key in SECTIONS and isinstance(value, Mapping):
            for name, item in value.items():
                axes[f"{key}.{name}"] = parse_axis(f"{key}.{name}", item)
        else:
            axes[key] = parse_axis(key, value)
    return axes
