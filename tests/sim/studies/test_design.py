"""Study files: which points they make, and what they refuse."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sim.errors import ConfigError
from sim.studies.axes import Listed, Range
from sim.studies.design import latin_hypercube, random
from sim.studies.study import make_study, read_study


def study(tmp_path: Path, text: str) -> list[dict[str, object]]:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return list(read_study(path).settings)


def test_a_grid_is_every_combination_and_blocks_follow_each_other(
    tmp_path: Path,
) -> None:
    """The last key fastest; decimal steps are exact; sections or quoted keys."""
    points = study(
        tmp_path,
        """
        [[vary]]
        engine.scheduler = ["chunked-prefill", "orca"]
        "workload.request_rate" = { from = 1.0, to = 1.3, step = 0.1 }
        [[vary]]
        engine.num_layer_groups = { from = 2, to = 16, num = 4, scale = "log" }
        """,
    )
    assert points[:8] == [
        {"engine.scheduler": name, "workload.request_rate": rate}
        for name in ("chunked-prefill", "orca")
        for rate in (1.0, 1.1, 1.2, 1.3)
    ]
    assert [p["engine.num_layer_groups"] for p in points[8:]] == [2, 4, 8, 16]


def test_a_list_pairs_values_by_place(tmp_path: Path) -> None:
    """One value holds for all."""
    points = study(
        tmp_path,
        """
        [[vary]]
        design = "list"
        parallel.tensor_parallel_size = [1, 2, 4]
        cluster.gpus_per_node = [1, 2, 4]
        cluster.gpu = "h200_sxm"
        """,
    )
    assert [tuple(p.values()) for p in points] == [
        (1, 1, "h200_sxm"),
        (2, 2, "h200_sxm"),
        (4, 4, "h200_sxm"),
    ]


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_latin_hypercube_has_one_point_in_each_stratum(scale: str) -> None:
    """Of every axis; and axes are shuffled apart."""
    axes = {"a": Range(1.0, 16.0, scale), "b": Range(0.5, 1.5)}
    points = latin_hypercube(axes, 40, 3)
    a = [float(p["a"]) for p in points]  # type: ignore[arg-type]
    b = [float(p["b"]) for p in points]  # type: ignore[arg-type]
    share = [math.log2(v) / 4 if scale == "log" else (v - 1) / 15 for v in a]
    assert sorted(int(40 * s) for s in share) == list(range(40))
    assert sorted(int(40 * (v - 0.5)) for v in b) == list(range(40))
    assert a != sorted(a)
    assert points == latin_hypercube(axes, 40, 3)
    assert points != latin_hypercube(axes, 40, 4)


def test_whole_ranges_draw_every_integer_alike() -> None:
    """Also the two ends: 3,000 draws of four values, 750 each within 5 sigma."""
    drawn = [p["k"] for p in random({"k": Range(1, 4)}, 3000, 0)]
    assert set(drawn) == {1, 2, 3, 4}
    assert all(abs(drawn.count(v) - 750) < 5 * math.sqrt(562.5) for v in (1, 2, 3, 4))


def test_a_new_key_does_not_change_the_draws_of_another() -> None:
    """Each key has its own named stream."""
    one = random({"a": Range(0.0, 1.0)}, 5, 0)
    two = random({"b": Range(0.0, 1.0), "a": Range(0.0, 1.0)}, 5, 0)
    assert [p["a"] for p in one] == [p["a"] for p in two]


def test_replications_are_seeds_after_the_configured_one(tmp_path: Path) -> None:
    """The same ones for every setting: common random numbers."""
    points = study(
        tmp_path,
        "replications = 3\nconfig.seed = 7\n[[vary]]\nengine.num_layer_groups = [4, 8]",
    )
    assert [p["seed"] for p in points] == [7, 8, 9, 7, 8, 9]


def test_base_file_config_and_values_in_this_order(tmp_path: Path) -> None:
    """And paths are relative to the study."""
    (tmp_path / "base.toml").write_text("seed = 1\ncost.usd_per_gpu_hour = 9.0")
    (tmp_path / "study.toml").write_text(
        'base = "base.toml"\nconfig.seed = 2\nconfig.engine.block_size = 32\n'
        '[[vary]]\nworkload.path = ["t.csv"]\nengine.block_size = [64]'
    )
    loaded = read_study(tmp_path / "study.toml", ["engine.max_num_seqs=7"])
    config = loaded.config(loaded.settings[0])
    assert (config.seed, config.cost.usd_per_gpu_hour) == (2, 9.0)
    assert (config.engine.block_size, config.engine.max_num_seqs) == (64, 7)
    assert config.workload.path == str(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vary = 3", "blocks"),
        ("nonsense = 1", "must be one of"),
        ("replications = 0", "integer in 1..1000"),
        ("[[vary]]\nseed = [1]\n[[vary]]\ndesign = 'x'\nseed = [1]", "vary.design"),
        ("[[vary]]\nseed = []", "at least one value"),
        ("[[vary]]", "at least one key"),
        ("[[vary]]\nseed = [[1]]", "flat list"),
        ("[[vary]]\nseed = {from = 1, to = 3}", "needs step or num"),
        ("[[vary]]\nseed = {from = 3, to = 1}", "below to"),
        ("[[vary]]\nseed = {from = 1, to = 3, by = 1}", "unknown: by"),
        ("[[vary]]\nseed = {from = 0, to = 3, scale = 'log', num = 3}", "from > 0"),
        ("[[vary]]\nseed = {from = 0, to = 3e9, step = 1e-3}", "at most 10000"),
        ("base = 3", "path of a configuration"),
        ("config = 3", r"must be a table \[config\]"),
        ("[[vary]]\nseed = {from = 1, to = 9, step = 0}", "step must be a number"),
        (f"[[vary]]\nseed = {{from = 1, to = {10**400}, num = 3}}", "must be"),
        ("[[vary]]\nseed = {from = 1, to = 9, step = 2, num = 3}", "neither num nor"),
        ("[[vary]]\nseed = {from = 1, to = 9, num = 1}", "num must be an integer"),
        (
            "[[vary]]\ndesign = 'random'\nsamples = 2\nsample_seed = -1\nseed = [1]",
            "vary.sample_seed",
        ),
        ("[[vary]]\nsamples = 3\nseed = [1]", "vary.samples"),
        ("[[vary]]\ndesign = 'random'\nseed = {from = 1, to = 3}", "vary.samples"),
        (
            "[[vary]]\ndesign = 'list'\nseed = [1,2]\nengine.block_size = [1,2,3]",
            "1 or 3",
        ),
        ("replications = 2\n[[vary]]\nseed = [1, 2]", "where seed is varied"),
        (
            "[[vary]]\nseed = {from = 0, to = 999, step = 1}\n"
            "cost.usd_per_gpu_hour = {from = 0, to = 999, step = 1}",
            "at most 100000 points",
        ),
    ],
)
def test_a_bad_study_is_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    """With the file's name in front."""
    with pytest.raises(ConfigError, match=words) as caught:
        study(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'study.toml'}: ")
    assert "\n" not in str(caught.value)


def test_a_value_that_no_key_allows_names_the_study() -> None:
    """The configuration's own message, as everywhere."""
    made = make_study({"engine.num_layer_groups": [0]})
    with pytest.raises(ConfigError, match=r"study: engine\.num_layer_groups = 0"):
        made.config(made.settings[0])


def test_a_numbered_grid_is_evenly_spaced_and_holds_its_ends() -> None:
    """In the measure of its scale; integers stay integers and come once."""
    assert Range(1, 9, num=3).grid() == (1, 5, 9)
    assert Range(1, 3, num=9).grid() == (1, 2, 3)
    assert Range(1, 256, "log", num=5).grid() == (1, 4, 16, 64, 256)
    assert Range(0.0, 1.0, num=5).grid() == (0.0, 0.25, 0.5, 0.75, 1.0)


def test_listed_values_share_the_draws_alike() -> None:
    """Each of three gets a third of [0, 1), the last up to its end."""
    axis = Listed(("a", "b", "c"))
    drawn = [axis.at(share) for share in (0.0, 0.33, 0.34, 0.66, 0.67, 0.999999)]
    assert drawn == ["a", "a", "b", "b", "c", "c"]
