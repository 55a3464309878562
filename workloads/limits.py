"""Size limits of a workload, far above use, so bad input errs instead of hanging.

The limits keep every time below 2**63 ns and every array in memory.
"""

from __future__ import annotations

from typing import Final

MAX_REQUESTS: Final = 10_000_000
MAX_TOKENS: Final = 10_000_000
MAX_TIME_S: Final = 1e9
MIN_RATE: Final = 1e-3
MAX_RATE: Final = 1e9
MIN_BURSTINESS: Final = 1e-3
MAX_BURSTINESS: Final = 1e6
MAX_MEAN_TURNS: Final = 1000
MAX_THINK_S: Final = 1e6
MAX_CLIENTS: Final = 1_000_000
