"""Names of the files that hold placements of experts and their loads."""

from __future__ import annotations

from typing import Final

PLACE_FILE: Final = "place.csv"
LOADS_FILE: Final = "loads.csv.gz"
EXPERTS_FILE: Final = "experts.csv.gz"
