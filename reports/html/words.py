"""The words of the page: title, warnings, and per load cards and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from reports.html.accuracy import Accuracy, accuracy_of, measured_gains
from reports.html.charts.base import looks
from reports.html.digest import cards_of, digest_of, how_sure, what_if_lines
from reports.html.study import Run, Study
from reports.html.tables import (
    Table,
    accuracy_table,
    breakdown,
    gains_table,
    paired_table,
    parts_table,
    provenance_table,
    run_id,
    runs_table,
)
from reports.style import PolicyStyle

_MOST_CONFIGURATIONS: Final = 24
_PATHS: Final = {
    "s": "M-6 -6H6V6H-6Z",
    "o": "M-6 0A6 6 0 1 0 6 0A6 6 0 1 0 -6 0Z",
    "^": "M0 -7L7 6H-7Z",
    "D": "M0 -7L7 0L0 7L-7 0Z",
    "v": "M0 7L7 -6H-7Z",
}
_CROSS: Final = "M-7 -2H-2V-7H2V-2H7V2H2V7H-2V2H-7Z"


@dataclass(frozen=True, slots=True)
class View:
    """What changes with the load."""

    load: str
    blocks: list[dict[str, Any]]
    answers: list[tuple[str, list[str]]]
    breakdown: Table | None


def text_context(study: Study) -> dict[str, Any]:
    """Words and tables of a study, for the template."""
    accuracy = accuracy_of(study.compared[0].summary)
    return {
        **_head(study),
        **_words(study, accuracy),
        **_tables(study, accuracy),
        "bests": [],
        "answers": [],
    }


def _head(study: Study) -> dict[str, Any]:
    first = study.compared[0].summary
    styles = looks(study.policies)
    return {
        "title": study.title,
        "subtitle": f"{first['model_id']} on {first['num_gpus']} x {first['gpu']},"
        f" {first['dataset']}, engine profile {first['profile']}"
        f" (servescope {first['version']})",
        "loads": study.loads,
        "headline": study.headline,
        "legend": [legend_entry(style) for style in styles.values()],
        "baseline_label": study.baseline,
        "warnings": _warnings(study),
    }


def legend_entry(style: PolicyStyle) -> dict[str, str]:
    """Name, colour and marker of a policy."""
    path = _PATHS.get(style.marker, _CROSS)
    return {"label": style.label, "color": style.color, "path": path}


def _warnings(study: Study) -> list[str]:
    lines = what_if_lines((r.name, r.summary.get("what_if")) for r in study.compared)
    for run in study.compared:
        share = run.summary.get("extrapolated_fraction") or 0.0
        rejected = run.summary.get("rejected") or 0
        where = f"{run.name} at {run.load}"
        if share > 0.05:
            lines.append(
                f"{where}: {100 * share:.1f} % of the time lies outside profiled"
                " ranges."
            )
        if rejected:
            sent = run.summary["num_prompts"]
            lines.append(
                f"{where}: {rejected} of {sent} requests were rejected; latencies are"
                " of the others."
            )
    for key in ("model_id", "gpu", "num_gpus", "dataset", "profile"):
        values = list(dict.fromkeys(str(run.summary[key]) for run in study.compared))
        if len(values) > 1:
            lines.append(f"The runs differ in {key}: {', '.join(values)}.")
    return lines


def _words(study: Study, accuracy: Accuracy) -> dict[str, Any]:
    return {
        "views": [_view(study, load, accuracy) for load in study.loads],
        "timeline_note": _timeline_note(study),
        "accuracy_lines": how_sure(study.compared, accuracy),
        "likeness": accuracy.likeness,
    }


def _view(study: Study, load: str, accuracy: Accuracy) -> View:
    digest = digest_of(study, load, accuracy)
    answers = []
    if digest is not None:
        answers = [
            (f"What {study.candidate} gained", digest.gained or ["nothing"]),
            ("What it cost", digest.cost),
            ("Within chance", digest.unclear),
            ("How sure that is", digest.sure),
        ]
    return View(
        load,
        _blocks(study, load),
        [(title, lines) for title, lines in answers if lines],
        breakdown(study, load),
    )


def _blocks(study: Study, load: str) -> list[dict[str, Any]]:
    """Cards of each policy against the baseline, or of the only one alone."""
    baseline = study.run(study.baseline, load)
    others = [name for name in study.policies if name != study.baseline]
    runs = [run for name in others if (run := study.run(name, load)) is not None]
    if baseline is None or not runs:
        alone = runs or ([baseline] if baseline is not None else [])
        return [_block(f"{run.name} at {load}", run, None) for run in alone]
    return [
        _block(f"{run.name} against {baseline.name} at {load}", run, baseline)
        for run in runs
    ]


def _block(title: str, run: Run, baseline: Run | None) -> dict[str, Any]:
    return {
        "title": f"{title} (what-if)" if run.summary.get("what_if") else title,
        "cards": cards_of(run, baseline),
        "run": run_id(run),
        "baseline": "" if baseline is None else run_id(baseline),
    }


def _timeline_note(study: Study) -> str:
    several = any(run.config.get("parallel.replicas", 1) != 1 for run in study.compared)
    where = " of the first replica" if several else ""
    return (
        f"Ten seconds{where}, the same for every policy at a load. A box is an"
        " iteration in some layers: in the policy's colour where prompts run, grey"
        " where only decodes do. Chunked prefill takes a piece of a prompt through all"
        " layers; layered prefill takes whole prompts through one group of layers at a"
        " time. Drag, or Ctrl and wheel, to move and zoom."
    )


def _tables(study: Study, accuracy: Accuracy) -> dict[str, Any]:
    first = study.compared[0].summary
    texts = [
        (f"{run.name}, {run.load}", _config_text(run))
        for run in study.compared[:_MOST_CONFIGURATIONS]
    ]
    return {
        "runs_table": runs_table(study),
        "paired_table": paired_table(study.paired),
        "parts_table": parts_table(study),
        "accuracy_table": accuracy_table(accuracy),
        "gains_table": gains_table(measured_gains(first)),
        "provenance_table": provenance_table(study),
        "configurations": texts,
    }


def _config_text(run: Run) -> str:
    return "\n".join(f"{key} = {value}" for key, value in run.config.items())
