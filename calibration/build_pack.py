"""Build the packed kernel timings from the public wheels they are published in.

The timings are measured by NVIDIA and published, under Apache-2.0, inside the Python
wheels of aiconfigurator-core 0.12.0 and aiconfigurator 0.10.0. To rebuild the packs::

    pip install 'servescope[pack]'
    python -m calibration.build_pack --download

or, with the two wheels at hand::

    python -m calibration.build_pack --core CORE.whl --legacy LEGACY.whl [--out DIR]

The parquet tables are read straight out of the wheels; nothing of those packages is
installed, imported or run. The same wheels give the same bytes. What is kept is listed
in `calibration.pack_sources`, how it is stored in `calibration.pack_format`; what was
done is written to ``provenance.json``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from calibration import pack_format
from calibration.pack_set import Pack, write_set
from calibration.pack_sources import SHIPPED, sources
from calibration.pack_table import pack_tables
from calibration.table_source import CORE, LEGACY, PACKAGE_VERSIONS
from calibration.wheels import download, open_wheel
from sim.errors import ConfigError

DATA_DIR = Path(__file__).parent / "data"


def build(core: Path, legacy: Path, out: Path) -> list[Pack]:
    """Write one pack per GPU and framework, and ``provenance.json``, into a folder.

    Args:
        core: wheel of aiconfigurator-core 0.12.0.
        legacy: wheel of aiconfigurator 0.10.0.
        out: existing folder; files of the same names are replaced.

    Returns:
        The packs written.

    Raises:
        ConfigError: if a wheel is not the one expected, or `out` is not a folder.
    """
    if not out.is_dir():
        raise ConfigError(f"--out {out}: not a folder")
    paths = {CORE: core, LEGACY: legacy}
    wheels = {
        package: open_wheel(path, package, PACKAGE_VERSIONS[package])
        for package, path in paths.items()
    }
    packs = []
    for collection in SHIPPED:
        members, tables, _ = pack_tables(wheels, sources(collection))
        content = pack_format.npz_bytes(members)
        packs.append(Pack(collection.gpu, collection.framework, content, tables))
    write_set(out, packs)
    return packs


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m calibration.build_pack",
        description="Pack the kernel timings of two public wheels.",
    )
    parser.add_argument("--core", type=Path, help="wheel of aiconfigurator-core 0.12.0")
    parser.add_argument("--legacy", type=Path, help="wheel of aiconfigurator 0.10.0")
    parser.add_argument("--download", action="store_true", help="fetch both with pip")
    parser.add_argument("--out", type=Path, default=DATA_DIR, help="output folder")
    arguments = parser.parse_args(argv)
    given = sum(path is not None for path in (arguments.core, arguments.legacy))
    if given != (0 if arguments.download else 2):
        parser.error("give either --download, or both --core and --legacy")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: build the packs, print their sizes; 0 if done, 2 on bad input."""
    arguments = _arguments(argv)
    try:
        if arguments.download:
            with tempfile.TemporaryDirectory() as folder:
                core = download(CORE, Path(folder))
                legacy = download(LEGACY, Path(folder))
                packs = build(core, legacy, arguments.out)
        else:
            packs = build(arguments.core, arguments.legacy, arguments.out)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for pack in packs:
        size = len(pack.content)
        sys.stdout.write(f"{pack.file}: {pack.rows} rows, {size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
