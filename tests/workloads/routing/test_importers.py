"""Files of routing counts: what each format means, and what none may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.errors import ConfigError
from workloads.routing.importers import read_routing
from workloads.routing.importers.options import ImportOptions
from workloads.routing.importers.vllm_log import balancedness

TOP_1 = ImportOptions(top_k=1)


def test_pairs_are_counted_once_in_both_directions(tmp_path: Path) -> None:
    """Three experts: 0 and 1 met twice, 1 and 2 six times; shares of 16 ordered pairs.

    The number of tokens behind a pair's last column does not matter.
    """
    layer = {"heat": [2, 8, 6], "pairs": [[0, 1, 2, 99], [1, 2, 6, 99]]}
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps({"k": 2, "layers": [layer, layer]}))
    stats = read_routing(path)
    assert stats.top_k == 2
    assert stats.coactivation is not None
    for shares in stats.coactivation:
        assert shares * 16 == pytest.approx(np.array([[0, 2, 0], [2, 0, 6], [0, 6, 0]]))
    assert stats.load[0] == pytest.approx([2 / 16, 8 / 16, 6 / 16])


def test_arrays_give_the_statistics_they_hold(tmp_path: Path) -> None:
    """Load, top_k and joint shares of adjacent layers, as they stand in the file."""
    load = np.array([[0.5, 0.5], [0.25, 0.75]])
    joint = np.array([[[0.125, 0.375], [0.125, 0.375]]])
    path = tmp_path / "stats.npz"
    np.savez(path, load=load, top_k=np.array(1), transition=joint)
    stats = read_routing(path)
    assert stats.top_k == 1
    assert stats.load == pytest.approx(load)
    assert stats.transition == pytest.approx(joint)
    np.savez(path, load=load)
    assert read_routing(path, ImportOptions(top_k=2)).top_k == 2


def test_an_npy_is_a_trace_of_tokens(tmp_path: Path) -> None:
    """[tokens, layers]: expert 0 by three of four tokens in the first layer."""
    np.save(tmp_path / "t.npy", np.array([[0, 1], [0, 1], [0, 0], [1, 1]]))
    load = read_routing(tmp_path / "t.npy").load
    assert load == pytest.approx(np.array([[0.75, 0.25], [0.25, 0.75]]))


def test_sglang_sums_its_steps_and_leaves_dense_layers_out(tmp_path: Path) -> None:
    """Layer 1 of two steps never routed a token."""
    steps = [[[1, 0], [0, 0], [2, 2]], [[0, 3], [0, 0], [0, 4]]]
    path = tmp_path / "dump.json"
    path.write_text(json.dumps({"logical_count": steps}))
    load = read_routing(path, TOP_1).load
    assert load == pytest.approx(np.array([[0.25, 0.75], [0.25, 0.75]]))


def test_balancedness_reads_through_damaged_lines() -> None:
    """A number at the end of a sentence is one; a word of dots and digits is none."""
    log = "balancedness=0.5.\nbalancedness = 1.2.3\nbalancedness=7e-1, x\nbalance=1\n"
    assert balancedness(log) == [0.5, 0.7]


_PAIR = {"heat": [1, 1], "pairs": [[0, 1, 1]]}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([1], "must be a JSON object"),
        ({"layers": [{"hot": [1]}]}, '"heat"'),
        ({"k": 1, "layers": [{"heat": [1, 1e300]}]}, "heat: must be counts"),
        ({"k": 1, "layers": [{"heat": [0, 0]}]}, "sum to > 0"),
        ({"k": 1, "layers": [_PAIR | {"pairs": [[0, 2, 1]]}]}, "pairs: must be"),
        ({"k": 1, "layers": [_PAIR | {"pairs": [[0, 1]]}]}, "pairs: must be"),
        ({"layers": [_PAIR]}, "give --top-k"),
        ({"logical_count": [[1, float("nan")]]}, "logical_count: must be counts"),
        ({"logical_count": [[2, -3], [1, 1]]}, r"must be \[L\]\[E\] counts"),
        ({"logical_count": [[0, 0]]}, r"must be \[L\]\[E\] counts"),
        ({"logical_count": [[1, 2]]}, "give --top-k"),
    ],
)
def test_a_bad_document_is_one_clear_line(
    document: Any, says: str, tmp_path: Path
) -> None:
    refuses(tmp_path / "bad.json", json.dumps(document).encode(), says)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"\xff\xfe", "not CSV in UTF-8"),
        ("t.csv", b'a,b\n0,"1\n', "not CSV in UTF-8"),
        ("t.csv", b"a,b\n", "tokens x layers"),
        ("t.csv", b"0,1\n2\n", "same length"),
        ("t.csv", b"0,1\n2,4096\n", "0 to 4095"),
        ("t.csv", b"0,1\n2,0.5\n", "0 to 4095"),
        ("e.log", b"balancedness=1.5", r"balancedness in \(0, 1\]"),
    ],
)
def test_a_bad_text_is_one_clear_line(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    refuses(tmp_path / name, content, says)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"routed": np.zeros((2, 2, 2))}, "same expert twice"),
        ({"routed": np.zeros(3)}, r"tokens, layers\[, top_k\]"),
        ({"loud": np.ones((1, 2))}, "neither load nor routed"),
        ({"load": np.ones((1, 2)), "top_k": np.array([1, 2])}, "one integer"),
        ({"load": np.ones((1, 2)), "top_k": np.array(np.nan)}, "one integer"),
        ({"load": np.ones((1, 2))}, "give --top-k"),
    ],
)
def test_bad_arrays_are_one_clear_line(
    arrays: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    refuses(path, path.read_bytes(), says)


def refuses(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        read_routing(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_log_needs_a_parallel_size_that_divides_the_experts(tmp_path: Path) -> None:
    path = tmp_path / "e.log"
    path.write_text("balancedness=0.5")
    options = ImportOptions(model="Qwen3-30B-A3B", gpus=7)
    with pytest.raises(ConfigError, match="divide the 128 experts"):
        read_routing(path, options)
