"""Energy of GPU boards: additive in time, waiting, HBM bytes and FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.units import NS_PER_S, s_from_ns

Int64 = npt.NDArray[np.int64]


class EnergySplit(NamedTuple):
    """Joules of one iteration over all GPUs of a replica."""

    run_j: float
    wait_j: float
    hbm_j: float
    flop_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    """E = P_run (t - t_wait) + P_gap t_wait + e_b B + e_f F, at most P_cap t.

    Fitted to public board-power measurements (ML.ENERGY leaderboard v3); parameters
    and their confidence come with the GPU catalogue. Kernel times were measured under
    the power cap, so the cap clamps energy and does not slow anything down.

    Attributes:
        num_gpus: GPUs of the replica.
        run_w: Board power while kernels run, beyond HBM and FLOP energy.
        gap_w: Board power while waiting for the host or in a collective.
        idle_w: Board power with a model loaded and nothing to do.
        cap_w: Board power limit.
        hbm_pj_per_byte: Energy per HBM byte.
        pj_per_flop: Energy per floating-point operation.
    """

    num_gpus: int
    run_w: float
    gap_w: float
    idle_w: float
    cap_w: float
    hbm_pj_per_byte: float
    pj_per_flop: float

    def split(
        self, *, duration_ns: int, wait_ns: int, hbm_bytes: int, flops: int
    ) -> EnergySplit:
        """Energy of an iteration; parts shrink together where the cap binds."""
        run_j = self.num_gpus * self.run_w * ((duration_ns - wait_ns) / NS_PER_S)
        wait_j = self.num_gpus * self.gap_w * (wait_ns / NS_PER_S)
        hbm_j = self.hbm_pj_per_byte * hbm_bytes * 1e-12
        flop_j = self.pj_per_flop * flops * 1e-12
        cap_j = self.num_gpus * self.cap_w * (duration_ns / NS_PER_S)
        total_j = run_j + wait_j + hbm_j + flop_j
        if total_j <= cap_j:
            return EnergySplit(run_j, wait_j, hbm_j, flop_j)
        keep = cap_j / total_j
        return EnergySplit(run_j * keep, wait_j * keep, hbm_j * keep, flop_j * keep)

    def split_many(
        self, *, duration_ns: Int64, wait_ns: Int64, hbm_bytes: Int64, flops: Int64
    ) -> npt.NDArray[np.float64]:
        """Energy of many iterations, each exactly that of :meth:`split`.

        Returns:
            Joules, shape (k, 4): run, wait, HBM, FLOP.
        """
        parts = np.empty((4, duration_ns.size))
        run, wait, hbm, flop = parts
        np.multiply(
            self.num_gpus * self.run_w, (duration_ns - wait_ns) / NS_PER_S, out=run
        )
        np.multiply(self.num_gpus * self.gap_w, wait_ns / NS_PER_S, out=wait)
        np.multiply(self.hbm_pj_per_byte * hbm_bytes, 1e-12, out=hbm)
        np.multiply(self.pj_per_flop * flops, 1e-12, out=flop)
        cap_j = self.num_gpus * self.cap_w * (duration_ns / NS_PER_S)
        keep = cap_j / (run + wait + hbm + flop)
        if keep.min() < 1.0:
            parts *= np.minimum(keep, 1.0)
        return parts.T

    def idle_j(self, duration_ns: int) -> float:
        """Energy of an idle replica."""
        return self.num_gpus * self.idle_w * s_from_ns(duration_ns)
