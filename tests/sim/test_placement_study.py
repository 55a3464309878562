"""The study of policy times placement: intervals, figures, published directions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from reports.placement_study import STUDY_FILE, write_study_figures
from sim import placement_published
from sim.config_file import load_config
from sim.placement_study import CASES, METRICS, PLACEMENTS, SCHEDULERS, main, summarise
from sim.runner import run_config


def _runs() -> pd.DataFrame:
    rows = []
    for scheduler in SCHEDULERS:
        for placement in PLACEMENTS:
            for seed in range(3):
                labels = {"case": next(iter(CASES)), "scheduler": scheduler}
                labels |= {"placement": placement, "seed": seed}
                rows.append(labels | dict.fromkeys(METRICS, 10.0 + seed))
    return pd.DataFrame(rows)


def test_intervals_are_students() -> None:
    """Values 10, 11, 12: standard error 1/sqrt(3), t of 2 degrees 4.303."""
    summary = summarise(_runs())
    assert len(summary) == len(SCHEDULERS) * len(PLACEMENTS)
    assert summary["mean_ttft_ms"].tolist() == pytest.approx([11.0] * len(summary))
    width = summary["mean_ttft_ms_ci95"].iloc[0]
    assert width == pytest.approx(4.3027 / 3**0.5, rel=1e-4)


def test_figures_come_from_the_file(tmp_path: Path) -> None:
    _runs().to_csv(tmp_path / STUDY_FILE, index=False)
    paths = write_study_figures(tmp_path)
    assert [p.name for p in paths] == ["placement_study_1.png", "placement_study_1.svg"]


def test_bad_arguments_exit_2(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--seeds", "0"])
    assert left.value.code == 2
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file")]) == 2


@pytest.mark.long
def test_gains_shrink_across_domains() -> None:
    """Measured: 21.8 % where fitted, 3.8 % on another domain (sjqsjq/EPLB)."""
    own, _, other, _ = placement_published.domain_cases()
    gain = [
        run_config(load_config(None, list(case.better))).summary[case.metric]
        / run_config(load_config(None, list(case.base))).summary[case.metric]
        for case in (own, other)
    ]
    assert 1.10 < gain[0] < 1.30
    assert 1.0 < gain[1] < 1.0 + 0.7 * (gain[0] - 1.0)


@pytest.mark.long
def test_published_directions() -> None:
    """Every published gain is a gain here; how large, the table says."""
    frame = placement_published.published_frame()
    assert (frame["simulated"] > 1.02).all()
