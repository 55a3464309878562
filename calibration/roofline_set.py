"""The MoE rooflines of an imported pack, beside it in its set."""

from __future__ import annotations

from typing import Final

from calibration.pack_sources import MOE_TABLES
from calibration.tables import KernelTables

ROOFLINES: Final = "moe_roofline.json"


def set_rooflines(tables: KernelTables) -> tuple[bytes, str]:
    """The set's file of MoE rooflines with those of one pack fitted anew.

    Args:
        tables: the pack; need not be written yet.

    Returns:
        The file's bytes, empty if the pack has no MoE tables, and a summary.

    Raises:
        ConfigError: if the set's file so far is damaged.
    """
    if not set(MOE_TABLES) & set(tables.names):
        return b"", "no MoE tables: no rooflines to fit"
    from calibration import fit_moe_roofline as fits  # noqa: PLC0415 (slow to load)

    known = fits.read_fits(tables.data_dir / ROOFLINES)
    fitted = fits.fit_tables([tables], {"slices": {}, "loads": known["loads"]})
    others = {
        key: fit
        for key, fit in known["slices"].items()
        if not key.startswith(f"{tables.pack}/")
    }
    document: fits.Document = {
        "slices": others | fitted["slices"],
        "loads": known["loads"] | fitted["loads"],
    }
    return fits.document_bytes(document), fits.summary(fitted["slices"])
