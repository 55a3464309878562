"""Statistics: what is accepted, what is refused, what sampling says."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sim.errors import ConfigError
from sim.routing_stats import make_stats
from workloads.routing.importers import read_routing
from workloads.routing.importers.options import ImportOptions
from workloads.routing.importers.stats_json import write_stats
from workloads.routing.markov import planted_markov
from workloads.routing.measure import measure
from workloads.routing.popularity import dirichlet_load


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_shares_inclusions_and_counts_mean_the_same() -> None:
    load = dirichlet_load(_rng(), 3, 8, 1.0)
    counts = np.array([[4.0, 3, 2, 1]] * 3)
    assert make_stats(load * 2, 2).load == pytest.approx(load)
    assert make_stats(counts, 2).load[0] == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_conditional_and_joint_transitions_mean_the_same() -> None:
    planted = planted_markov(_rng(), dirichlet_load(_rng(1), 4, 8, 1.0), 4, 0.5).stats
    joint = planted.transition
    assert joint is not None
    conditional = joint / joint.sum(axis=2, keepdims=True)
    read = make_stats(planted.load, 1, conditional)
    assert read.transition == pytest.approx(joint)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["load"][1].__setitem__(0, 0.9), "sums to"),
        (lambda d: d["load"][0].__setitem__(0, float("nan")), "NaN"),
        (lambda d: d["load"][0].__setitem__(0, -0.1), "< 0"),
        (lambda d: d["load"].pop(), "shape"),
        (lambda d: d["load"][0].pop(), "same length"),
        (lambda d: d["load"][0].__setitem__(0, "x"), "numbers"),
        (lambda d: d.update(top_k=9), "top_k"),
        (lambda d: d.update(top_k=1.5), "integer"),
        (lambda d: d.update(num_experts=5), "shape"),
        (lambda d: d.update(laod=1), "did you mean"),
        (lambda d: d.pop("load"), "misses load"),
        (lambda d: d["transition"][0][0].__setitem__(0, 5.5), "transition"),
        (lambda d: d["transition"].pop(), "shape"),
        (lambda d: d.update(coactivation=d["transition"] * 2), "coactivation"),
    ],
)
def test_bad_statistics_are_one_clear_line(
    change: object, says: str, tmp_path: Path
) -> None:
    stats = planted_markov(_rng(), dirichlet_load(_rng(1), 3, 4, 1.0), 2, 0.5).stats
    path = tmp_path / "stats.json"
    write_stats(path, stats)
    document = json.loads(path.read_text())
    change(document)  # type: ignore[operator]
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=says) as caught:
        read_routing(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_statistics_survive_their_file(tmp_path: Path) -> None:
    routed = planted_markov(_rng(), dirichlet_load(_rng(1), 3, 8, 1.0), 2, 0.5)
    stats = measure(routed.paths(_rng(2), 400), 8)
    write_stats(tmp_path / "s.json", stats)
    again = read_routing(tmp_path / "s.json")
    assert again.load == pytest.approx(stats.load)
    assert again.transition == pytest.approx(stats.transition)


def test_planted_statistics_equal_their_samples() -> None:
    planted = planted_markov(_rng(), dirichlet_load(_rng(1), 3, 8, 2.0), 4, 0.4)
    stats = measure(planted.paths(_rng(2), 60_000), 8)
    assert stats.load == pytest.approx(planted.stats.load, abs=0.006)
    assert stats.transition == pytest.approx(planted.stats.transition, abs=0.004)


def test_measured_coactivation_counts_pairs_of_a_token() -> None:
    routed = np.array([[[0, 1]], [[0, 2]], [[1, 0]]], dtype=np.int16)
    pairs = measure(routed, 3).coactivation
    assert pairs is not None
    assert pairs[0] == pytest.approx(np.array([[0, 2, 1], [2, 0, 0], [1, 0, 0]]) / 6)


def test_pickled_and_exploding_npz_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    np.savez(bad, load=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConfigError, match="plain arrays"):
        read_routing(bad)
    bomb = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("load.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(136):
            member.write(bytes(2**20))
    with pytest.raises(ConfigError, match="unpacks to over 134217728 bytes"):
        read_routing(bomb)
    garbage = tmp_path / "garbage.npz"
    garbage.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ConfigError, match="plain arrays"):
        read_routing(garbage)
    with zipfile.ZipFile(garbage, "w") as archive:
        archive.writestr(f"{'n' * 9000}.npy", b"")
    content = garbage.read_bytes()  # two names of one member, which zipfile quotes
    garbage.write_bytes(content.replace(b"nnn", b"mnn", 1))
    with pytest.raises(ConfigError, match="plain arrays") as refused:
        read_routing(garbage)
    assert len(str(refused.value)) < 1000


def test_other_formats_give_the_same_popularity(tmp_path: Path) -> None:
    routed = np.array([[[0], [1]], [[1], [1]], [[2], [0]], [[2], [2]]], dtype=np.int16)
    (tmp_path / "t.csv").write_text("layer0,layer1\n0,1\n1,1\n2,0\n2,2\n")
    np.savez(tmp_path / "t.npz", routed=routed)
    counts = [[1, 1, 2], [1, 2, 1]]
    (tmp_path / "sg.json").write_text(json.dumps({"logical_count": [counts, counts]}))
    heat = {"k": 1, "layers": [{"heat": row, "pairs": []} for row in counts]}
    (tmp_path / "co.json").write_text(json.dumps(heat))
    options = ImportOptions(top_k=1)
    want = np.array(counts) / 4
    for name in ("t.csv", "t.npz", "sg.json", "co.json"):
        assert read_routing(tmp_path / name, options).load == pytest.approx(want)


def test_a_vllm_log_gives_its_imbalance(tmp_path: Path) -> None:
    log = tmp_path / "eplb.log"
    log.write_text(
        "INFO EPLB step: 1 for model m: avg_tokens=10.00, max_tokens=15,"
        " balancedness=0.6667\nINFO other\n"
    )
    options = ImportOptions(model="Qwen3-30B-A3B", gpus=8)
    load = read_routing(log, options).load
    ranks = load.reshape(48, 8, 16).sum(axis=2)
    assert (ranks.max(axis=1) * 8).mean() == pytest.approx(1.5, abs=0.01)
    with pytest.raises(ConfigError, match="--model"):
        read_routing(log)
