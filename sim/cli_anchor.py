"""The command ``calibrate anchor``: a profile fitted to the user's own steps."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from sim.anchor import fit_anchor, read_steps
from sim.cli_output import print_json
from sim.config import Config
from sim.files import write_atomic


def anchor_command(
    config: Config, measurements: Path, out: Path, *, as_json: bool, quiet: bool
) -> None:
    """Fit, write the anchor file, and show every step before and after."""
    steps = read_steps(measurements)
    fit = fit_anchor(config, steps, f"{len(steps)} steps of {measurements.name}")
    write_atomic(out, fit.anchor.toml().encode())
    anchor = fit.anchor
    if as_json:
        print_json(
            {
                "kernel_factor": anchor.kernel_factor,
                "host_factor": anchor.host_factor,
                "leave_one_out_error": anchor.leave_one_out_error,
                "measured_ms": [step.measured_ms for step in steps],
                "before_ms": list(fit.before_ms),
                "after_ms": list(fit.after_ms),
            }
        )
    elif not quiet:
        table = Table(title=f"{anchor.base} anchored to {anchor.fitted_to}")
        for name in ("decodes", "prompt tokens", "measured ms", "before", "after"):
            table.add_column(name, justify="right")
        for step, before, after in zip(steps, fit.before_ms, fit.after_ms, strict=True):
            table.add_row(
                str(step.decoding),
                str(step.prefill_tokens),
                f"{step.measured_ms:.3f}",
                f"{100 * (before / step.measured_ms - 1):+.1f} %",
                f"{100 * (after / step.measured_ms - 1):+.1f} %",
            )
        console = Console()
        console.print(table)
        console.print(
            f"kernel factor {anchor.kernel_factor:g}, host factor"
            f" {anchor.host_factor:g}; leave-one-out error"
            f" {100 * anchor.leave_one_out_error:.1f} %"
        )
        console.print(f"written: {out}; use --set calibration.profile={out}")
