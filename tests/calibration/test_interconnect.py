"""Links of the catalogue, and collectives on them against the packed tables."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from calibration.collective_check import check_collectives
from calibration.hardware import gpu, gpu_names
from calibration.interconnect import (
    TOPOLOGIES,
    custom_all_reduce_ns,
    fabric,
    nccl_ns,
    protocols,
    topology,
)
from calibration.kernels.collectives import Collectives
from calibration.tables import load_tables
from sim.cli import app


@pytest.mark.parametrize("name", gpu_names())
def test_every_gpu_has_links_slower_than_their_nominal_rate(name: str) -> None:
    """NCCL counts on less than the data sheet's bandwidth."""
    device = gpu(name)
    assert fabric(device) in TOPOLOGIES
    ports = topology(device, 4).links
    assert ports[0].bytes_per_s < device.nvlink_bandwidth_bytes_per_s
    assert topology(device, 4, link_scale=2.0).links[0].bytes_per_s == pytest.approx(
        2 * ports[0].bytes_per_s
    )


@pytest.mark.parametrize("kind", TOPOLOGIES)
def test_every_topology_joins_every_pair(kind: str) -> None:
    links = topology(gpu("h100_sxm"), 16, kind)
    routes = {links.route(a, b) for a in range(16) for b in range(16) if a != b}
    assert len(routes) == 16 * 15
    assert all(0 <= link < len(links.links) for route in routes for link in route)


def test_small_messages_by_hand() -> None:
    """LL wins: 6.6 us and 2 (n - 1) hops of 0.6 us, and a few ns for the bytes.

    vLLM's kernel: 3 us and two barriers.
    """
    links = topology(gpu("h100_sxm"), 8)
    assert 0 <= nccl_ns("all_reduce", 512, links) - (6_600 + 14 * 600) <= 14 * 2
    assert custom_all_reduce_ns(8, links) == 3_000 + 2 * 600 + 1


def test_large_messages_come_to_the_bandwidth_of_the_ports() -> None:
    """A ring moves 2 (n - 1) / n of the message through a port of 370.8 GB/s."""
    links, message = topology(gpu("h100_sxm"), 8), 1 << 30
    least_ns = 2 * 7 / 8 * message / 370.8
    assert nccl_ns("all_reduce", message, links) == pytest.approx(least_ns, rel=0.02)


def test_one_shot_gives_way_to_two_where_vllm_says() -> None:
    """Below 256 KiB each of 8 GPUs reads 7 messages, from there twice 7 eighths."""
    links = topology(gpu("h100_sxm"), 8)
    once, twice = (custom_all_reduce_ns(s, links) for s in (262_143, 262_144))
    assert once == 3_000 + 1_200 + -(-7 * 262_143 * 10**9 // 370_800_000_000)
    assert twice is not None
    assert once is not None
    assert twice < once


def test_protocols_on_media() -> None:
    assert {p.name: set(p.hop_ns) for p in protocols()} == {
        "LL": {"nvlink", "pcie", "net"},
        "LL128": {"nvlink", "net"},
        "Simple": {"nvlink", "pcie", "net"},
    }


def test_no_own_all_reduce_between_nodes() -> None:
    assert custom_all_reduce_ns(8, topology(gpu("h100_sxm"), 16, "nic-per-gpu")) is None


@pytest.mark.parametrize(
    ("name", "most"),
    [("h100_sxm", 0.25), pytest.param("h200_sxm", 0.25, marks=pytest.mark.long)],
)
def test_hopper_is_within_a_quarter_of_every_table(name: str, most: float) -> None:
    """No constant has seen the tables; the bound is what was found, rounded up."""
    rows = pd.DataFrame(check_collectives(load_tables(name)))
    rows["error"] = (rows["predicted_ns"] / rows["measured_ns"] - 1).abs()
    assert (rows.groupby("collective")["error"].mean() < most).all()
    assert set(rows["num_gpus"]) == {2, 4, 8}
    assert len(rows) == 4 * 63 + 69


def test_a_group_larger_than_any_profiled_takes_links_and_says_so() -> None:
    """Sixteen GPUs on one switch; eight still take the table."""
    tables, message = load_tables("h100_sxm"), 1 << 24
    wide = Collectives(tables, 16, 8 << 20)
    timed = wide.all_reduce(message, graph=False)
    assert timed.ns == timed.extrapolated_ns
    links = topology(gpu("h100_sxm"), 16)
    assert timed.ns == pytest.approx(nccl_ns("all_reduce", message, links), abs=1)
    assert wide.all_gather(message).ns == pytest.approx(
        nccl_ns("all_gather", message, links), abs=1
    )
    assert not Collectives(tables, 8, 8 << 20).all_gather(message).extrapolated_ns


def test_the_command_prints_an_error_per_collective(tmp_path: Path) -> None:
    command = ["calibrate", "links", "--gpu", "h100"]
    words = [*command, "--out", str(tmp_path), "--json"]
    found = json.loads(CliRunner().invoke(app, words).stdout)["links"]
    rows = pd.read_csv(tmp_path / "links.csv")
    for entry in found:
        errors = rows.loc[rows["collective"] == entry["collective"], "error"]
        assert entry["n"] == len(errors)
        assert entry["mape"] == pytest.approx(errors.abs().mean())
        assert entry["bias"] == pytest.approx(errors.mean())
    assert "alltoall" in CliRunner().invoke(app, command).stdout


@pytest.mark.long
def test_quiet_prints_nothing() -> None:
    command = ["calibrate", "links", "--gpu", "h100", "--quiet"]
    assert CliRunner().invoke(app, command).stdout == ""
