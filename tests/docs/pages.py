"""The pages whose every block is executed."""

from __future__ import annotations

from typing import Final

PAGES: Final = (
    "README.md",
    "calibration/README.md",
    "sim/schedulers/README.md",
    "sim/worked_studies/README.md",
    "workloads/README.md",
)
