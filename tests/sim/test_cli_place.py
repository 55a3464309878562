"""``servescope place``: the scripted form, bad input, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sim.cli import main
from sim.routing_stats import RoutingStats
from workloads.routing.importers.stats_json import write_stats
from workloads.routing.markov import planted_markov
from workloads.routing.popularity import dirichlet_load

KEYS = {
    *("strategy", "affinity", "load_par", "cross_gpu_share", "cross_node_share"),
    *("upper_bound", "gap", "proven", "solve_seconds", "placement"),
}


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def stats_file(tmp_path: Path) -> Path:
    load = dirichlet_load(_rng(1), 4, 16, 5.0)
    path = tmp_path / "STATS.json"
    write_stats(path, planted_markov(_rng(2), load, 4, 0.5, 2).stats)
    return path


def _run(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["place", *words])
    return int(left.value.code or 0)


def test_scripted_form(
    stats_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code = _run(
        *("--routing", str(stats_file), "--gpus", "4", "--gpus-per-node", "2"),
        *("--strategy", "exflow,joint,lpt", "--json"),
    )
    answer = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [row["strategy"] for row in answer] == ["exflow", "joint", "lpt"]
    document = json.loads(stats_file.read_text())
    joint, load = np.array(document["transition"]), np.array(document["load"])
    for row in answer:
        assert row.keys() >= KEYS
        gpu = np.argsort(np.array(row["placement"]), axis=1) // 4
        same = gpu[:-1, :, None] == gpu[1:, None, :]
        assert row["affinity"] == pytest.approx((joint * same).sum((1, 2)).mean())
        assert row["cross_gpu_share"] == pytest.approx(1 - row["affinity"])
        node = gpu[:-1, :, None] // 2 != gpu[1:, None, :] // 2
        assert row["cross_node_share"] == pytest.approx(
            (joint * node).sum((1, 2)).mean()
        )
        loads = np.stack([np.bincount(g, w, 4) for g, w in zip(gpu, load, strict=True)])
        assert row["load_par"] == pytest.approx((loads.max(1) * 4).mean())
    assert answer[0]["affinity"] == pytest.approx(0.5 + 0.5 / 4, abs=0.005)
    assert not any(Path.cwd().iterdir())


def test_files_figures_and_exports(stats_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = _run(
        *("--routing", str(stats_file), "--gpus", "4", "--strategy", "linear,eplb"),
        *("--redundant", "4", "--export", "sglang,vllm", "--out", str(out), "-q"),
    )
    assert code == 0
    names = {path.name for path in out.iterdir()}
    assert names >= {
        *("place.csv", "place.json", "loads.csv.gz", "load_heat_map.png"),
        *("balance_affinity.svg", "placement_traffic.png", "eplb.sglang.json"),
    }
    table = json.loads((out / "eplb.sglang.json").read_text())
    assert np.array(table["physical_to_logical_map"]).shape == (4, 20)
    vllm = json.loads((out / "linear.vllm.json").read_text())
    experts = vllm["layer_list"][0]["device_list"][1]["device_expert"]
    assert experts == [4, 5, 6, 7]


def test_gains_fall_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    code = _run(
        *("--routing", "OLMoE-1B-7B", "--domain", "c4", "--eval-domain", "arxiv"),
        *("--strategy", "linear,lpt", "--json"),
    )
    linear, lpt = json.loads(capsys.readouterr().out)
    assert code == 0
    assert lpt["load_par"] < 1.02 < lpt["eval_load_par"]
    assert linear["load_par"] > lpt["load_par"]


def test_affinity_alone_warns_about_load(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run("--routing", "OLMoE-1B-7B", "--strategy", "exflow", "--json") == 0
    assert "blind to load" in capsys.readouterr().err


def test_tables_fit_a_terminal_of_80_columns(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code = _run(
        *("--routing", "OLMoE-1B-7B", "--domain", "c4", "--eval-domain", "arxiv"),
        *("--strategy", "linear,moetuner", "--out", str(tmp_path / "out")),
    )
    printed = capsys.readouterr().out
    assert code == 0
    assert all(len(line) <= 80 for line in printed.splitlines()[:-1])
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
    for heading in ("max/mean", "Sends/token", "Gap %", "Moved slots", "elsewhere"):
        assert heading in printed


@pytest.mark.long
def test_an_expert_hotter_than_a_gpu_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load = np.full((2, 8), 0.5 / 7)
    load[0, 3] = 0.5
    load[1] = 1 / 8
    path = tmp_path / "hot.json"
    joint = load[:1, :, None] * load[1:, None, :]
    write_stats(path, RoutingStats(load, 1, joint))
    given = ("--routing", str(path), "--gpus", "4", "--json", "--strategy")
    assert _run(*given, "joint") == 0
    assert "in 1 of 2 layers one expert alone" in capsys.readouterr().err
    assert _run(*given, "lpt") == 0
    assert "one expert alone" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--gpus", "3"), "divide"),
        (("--gpus", "6", "--gpus-per-node", "4"), "multiple"),
        (("--strategy", "exflw"), "did you mean"),
        (("--strategy", "eplb", "--redundant", "3"), "divide"),
        (("--strategy", "eplb", "--redundant", "400"), "more copies"),
        (("--strategy", "coactivation"), "no coactivation"),
        (("--hierarchy", "tree"), "must be one of"),
        (("--dispatch", "best"), "must be one of"),
        (("--export", "xml"), "must be one of"),
        (("--eval", "uniform"), "must be 4 of 16"),
        (("--routing", "nowhere.json"), "no such file"),
    ],
)
def test_bad_input_exits_2_with_one_line(
    words: tuple[str, ...],
    says: str,
    stats_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ("--routing", str(stats_file), "--gpus", "4", "--json")
    assert _run(*given, *words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert captured.err.count("\n") == 1
