"""Anchors: planted factors are found, bounds hold, bad files are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.anchor_file import Anchor, read_anchor
from sim.anchor import COLUMNS, Step, fit_anchor, read_steps
from sim.build import build_machine, check_registered
from sim.cli import main
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.plan import LayerSpan, PrefillChunk, StepPlan

SHAPES = [(1, 0, 0), (8, 0, 0), (64, 0, 0), (0, 512, 0), (16, 2048, 4096)]


def planted(kernel: float, host: float, noise: float = 0.0) -> list[Step]:
    """Steps of the default machine with both parts scaled."""
    machine = build_machine(load_config(None))
    steps = []
    for i, (decoding, prompt, prefix) in enumerate(SHAPES):
        context = decoding * 3000
        chunks = (PrefillChunk(0, prefix, prompt),) if prompt else ()
        plan = StepPlan((LayerSpan(0, 48, chunks),))
        kernels = machine.pricer.kernel_ns(plan, decoding, context)
        rest = machine.pricer.price(plan, decoding, context).duration_ns - kernels
        steps.append(
            Step(
                decoding=decoding,
                context_tokens=context,
                prefill_tokens=prompt,
                prefix_tokens=prefix,
                measured_ms=(kernels * kernel + rest * host)
                * (1 + noise * (-1) ** i)
                / 1e6,
            )
        )
    return steps


def csv_of(steps: list[Step], path: Path) -> Path:
    rows = [",".join(str(getattr(s, c)) for c in COLUMNS) for s in steps]
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return path


@pytest.mark.parametrize(("kernel", "host"), [(1.3, 0.4), (0.8, 2.5)])
def test_planted_factors_are_found(kernel: float, host: float) -> None:
    fit = fit_anchor(load_config(None), planted(kernel, host), "a plant")
    assert fit.anchor.kernel_factor == pytest.approx(kernel, abs=1e-3)
    assert fit.anchor.host_factor == pytest.approx(host, abs=1e-3)
    assert fit.anchor.leave_one_out_error == pytest.approx(0.0, abs=1e-3)


def test_noise_shows_in_the_leave_one_out_error() -> None:
    fit = fit_anchor(load_config(None), planted(1.2, 1.0, noise=0.05), "noise")
    assert 0.03 < fit.anchor.leave_one_out_error < 0.3


def test_factors_stay_inside_their_bounds() -> None:
    """A machine five times slower is not this machine with a factor."""
    fit = fit_anchor(load_config(None), planted(5.0, 1.0), "too slow")
    assert fit.anchor.kernel_factor == 2.0
    assert 0.0 <= fit.anchor.host_factor <= 5.0


def test_an_anchored_profile_predicts_the_measured_steps(tmp_path: Path) -> None:
    steps = planted(1.25, 0.5)
    out = tmp_path / "mine.toml"
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "calibrate",
                "anchor",
                str(csv_of(steps, tmp_path / "steps.csv")),
                "--out",
                str(out),
                "--quiet",
            ]
        )
    assert ended.value.code == 0
    config = load_config(None, (), {"calibration.profile": str(out)}, check_registered)
    machine = build_machine(config)
    assert machine.profile.fitted_to[-1] == "5 steps of steps.csv"
    for step in steps:
        chunks = (
            (PrefillChunk(0, step.prefix_tokens, step.prefill_tokens),)
            if step.prefill_tokens
            else ()
        )
        plan = StepPlan((LayerSpan(0, 48, chunks),))
        cost = machine.pricer.price(plan, step.decoding, step.context_tokens)
        assert cost.duration_ns / 1e6 == pytest.approx(step.measured_ms, rel=1e-3)


def test_json_tells_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = csv_of(planted(1.1, 1.1), tmp_path / "steps.csv")
    out = tmp_path / "a.toml"
    with pytest.raises(SystemExit):
        main(["calibrate", "anchor", str(path), "--out", str(out), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["kernel_factor"] == pytest.approx(1.1, abs=1e-3)
    assert document["after_ms"] == pytest.approx(document["measured_ms"], rel=1e-3)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("-1,0,0,0,5", "decoding = '-1'"),
        ("1,10,0,0,nan", "measured_ms = 'nan'"),
        ("1,10,0,0,-3", "measured_ms = '-3'"),
        ("0,0,0,0,5", "no work"),
        ("1,x,0,0,5", "context_tokens = 'x'"),
    ],
)
def test_bad_steps_are_named(line: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    good = "1,10,0,0,5\n"
    path.write_text(",".join(COLUMNS) + "\n" + 2 * good + line + "\n")
    with pytest.raises(ConfigError) as error:
        read_steps(path)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_too_few_steps_and_other_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    path.write_text(",".join(COLUMNS) + "\n1,10,0,0,5\n")
    with pytest.raises(ConfigError, match="1 steps: must be 3"):
        read_steps(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="the columns must be decoding"):
        read_steps(path)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"kernel_factor": 9.0}, "kernel_factor = 9.0"),
        (
            {"leave_one_out_error": 10**400},
            "leave_one_out_error = an integer of 1329 bits",
        ),
        ({"base": "no-such-engine"}, "no-such-engine"),
    ],
)
def test_a_bad_anchor_file_is_named(
    change: dict[str, object], part: str, tmp_path: Path
) -> None:
    values: dict[str, object] = {
        "base": "vllm-0.24",
        "kernel_factor": 1.1,
        "host_factor": 1.0,
        "fitted_to": 'a "quoted" name',
        "leave_one_out_error": 0.1,
    }
    path = tmp_path / "a.toml"
    path.write_text(Anchor(**values).toml())  # type: ignore[arg-type]
    assert read_anchor(path) == Anchor(**values)  # type: ignore[arg-type]
    path.write_text(Anchor(**{**values, **change}).toml())  # type: ignore[arg-type]
    config = load_config(None, (), {"calibration.profile": str(path)})
    with pytest.raises(ConfigError) as error:
        build_machine(config)
    assert part in str(error.value)
