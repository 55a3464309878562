"""Shipped datasets against the published statistics they stand for."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from sim.errors import ConfigError
from workloads.build_tables import (
    arxiv_toml,
    azure_conv_toml,
    normal_scores,
    sharegpt_toml,
)
from workloads.datasets import DATASETS, load_table, sampler_for
from workloads.lengths import Lengths
from workloads.spec import WorkloadSpec
from workloads.streams import stream
from workloads.traces import Trace, read_trace
from workloads.workload import build_workload

ROOT = Path(__file__).parents[2]
SHAREGPT = ROOT.parent / "shared" / "traces" / "sharegpt_8k_llama2.csv"
N = 200_000


def draw(name: str) -> Lengths:
    return load_table(name).sample(N, stream(0, "prompt_len"), stream(0, "output_len"))


def summary(values: np.ndarray) -> list[float]:
    return [values.mean(), values.std(), *np.percentile(values, [50, 90, 99])]


@pytest.fixture(scope="module")
def sharegpt_file() -> Trace:
    if not SHAREGPT.exists():
        pytest.skip("public ShareGPT length file is not beside the repository")
    return read_trace(str(SHAREGPT))


def test_sharegpt_has_the_statistics_of_the_public_length_file() -> None:
    """microsoft/sarathi-serve@72339db: mean, std, p50, p90, p99; within 2 %."""
    prompt, output = draw("sharegpt")
    assert summary(prompt) == pytest.approx([2340, 2089, 1730, 5696, 7434], rel=0.02)
    assert summary(output) == pytest.approx([439, 266, 415, 834, 998], rel=0.02)
    shares = [(prompt <= tokens).mean() for tokens in (512, 1024, 2048, 4096)]
    assert shares == pytest.approx([0.23, 0.36, 0.55, 0.79], abs=0.01)
    assert np.corrcoef(prompt, output)[0, 1] == pytest.approx(0.04, abs=0.01)


def test_arxiv_has_the_means_of_the_layered_prefill_load() -> None:
    """Between its first 780 and 1200 rows; P90/median near Sarathi's outputs."""
    prompt, output = draw("arxiv")
    assert prompt.mean() == pytest.approx((8675 + 8922) / 2, rel=0.01)
    assert output.mean() == pytest.approx(202, rel=0.01)
    assert prompt.min() >= 300
    p50, p90 = np.percentile(output, [50, 90])
    assert p90 / p50 == pytest.approx(371 / 208, rel=0.02)


def test_arxiv_articles_have_the_spread_another_tokenizer_counts() -> None:
    """LongT5 (arXiv 2112.07916, Table 1) counts mean 10,720 and P90 20,170 tokens."""
    prompt, _ = draw("arxiv")
    ratio = np.percentile(prompt, 90) / prompt.mean()
    assert ratio == pytest.approx(20_170 / 10_720, rel=0.03)


def test_arxiv_articles_without_the_longest_look_like_sarathi_prompts() -> None:
    """Sarathi-Serve drops requests beyond 16,384 tokens: P90 / median 12985 / 7059."""
    prompt, output = draw("arxiv")
    kept = prompt[prompt + output <= 16_384 * 8800 / 10_390]
    p50, p90 = np.percentile(kept, [50, 90])
    assert p90 / p50 == pytest.approx(12_985 / 7_059, rel=0.02)


def test_a_client_cuts_articles_to_the_context_but_not_other_prompts() -> None:
    def lengths(dataset: str, context: int | None) -> list[tuple[int, int]]:
        spec = WorkloadSpec(dataset=dataset, num_requests=2_000, context_tokens=context)
        requests = build_workload(spec).requests
        return [(r.prompt_tokens, r.output_tokens) for r in requests]

    whole, cut = lengths("arxiv", None), lengths("arxiv", 16_384)
    assert cut == [(min(p, 16_384 - o), o) for p, o in whole]
    assert sum(p + o > 16_384 for p, o in whole) == pytest.approx(200, rel=0.25)
    assert lengths("sharegpt", 4_096) == lengths("sharegpt", None)


@pytest.mark.parametrize("name", ["arxiv", "azure-conv", "sharegpt"])
def test_tables_are_dense_in_the_tails(name: str) -> None:
    p = np.array(load_table(name).probability)
    assert p.size >= 41
    assert np.diff(p)[[0, -1]] == pytest.approx([0.001, 0.001])
    assert np.diff(p).max() == pytest.approx(0.02)


def test_the_shipped_arxiv_table_is_what_the_script_builds() -> None:
    shipped = ROOT / "workloads" / "data" / "arxiv.toml"
    assert arxiv_toml() == shipped.read_text(encoding="utf-8")


def test_the_shipped_sharegpt_table_is_what_the_script_builds(
    sharegpt_file: Trace,
) -> None:
    shipped = ROOT / "workloads" / "data" / "sharegpt.toml"
    assert sharegpt_toml(sharegpt_file.path) == shipped.read_text(encoding="utf-8")


def test_the_shipped_azure_table_is_what_the_script_builds() -> None:
    trace = ROOT.parent / "shared" / "traces" / "azure2023_conv.csv"
    if not trace.exists():
        pytest.skip("the public Azure trace is not there")
    shipped = ROOT / "workloads" / "data" / "azure-conv.toml"
    assert azure_conv_toml(str(trace)) == shipped.read_text(encoding="utf-8")


def test_azure_conversations_have_their_published_statistics() -> None:
    """Mean / median of 1155 / 1020 prompt and 211 / 129 output tokens."""
    prompt, output = draw("azure-conv")
    assert prompt.mean() == pytest.approx(1155, rel=0.02)
    assert np.median(prompt) == pytest.approx(1020, rel=0.02)
    assert output.mean() == pytest.approx(211, rel=0.02)
    assert np.median(output) == pytest.approx(129, rel=0.03)


def test_sampled_sharegpt_follows_the_whole_law_of_the_file(
    sharegpt_file: Trace,
) -> None:
    """Two-sample Kolmogorov-Smirnov distance below 0.01, normal scores alike."""
    prompt, output = draw("sharegpt")
    pairs = [
        (prompt, sharegpt_file.prompt_tokens),
        (output, sharegpt_file.output_tokens),
    ]
    for sampled, real in pairs:
        grid = np.arange(10_000)
        cdf = [
            np.searchsorted(np.sort(x), grid, side="right") / x.size
            for x in (sampled, real)
        ]
        assert np.abs(cdf[0] - cdf[1]).max() < 0.01
    scores = [
        np.corrcoef(normal_scores(p), normal_scores(o))[0, 1]
        for p, o in [(prompt, output), (pairs[0][1], pairs[1][1])]
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


def test_the_registry_is_read_only() -> None:
    with pytest.raises(TypeError):
        cast(MutableMapping[str, object], DATASETS)["mine"] = None


def test_an_unknown_dataset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"'arxive'; allowed: arxiv, azure-conv, random, sharegpt"
    ):
        sampler_for(WorkloadSpec(dataset="arxive"))
