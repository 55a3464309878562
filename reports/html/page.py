"""The page itself: charts, tables and words of a study in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from reports.html.embed import library_scripts, read_asset, script_hash
from reports.html.placements import Placements, placements_text
from reports.html.points import Points
from reports.html.points_words import points_text
from reports.html.sections import (
    chart_context,
    placements_context,
    points_context,
)
from reports.html.study import Study
from reports.html.words import text_context
from sim.errors import ConfigError
from sim.files import write_atomic

MAX_BYTES: Final = 8_000_000


def render_page(
    study: Study | Points | Placements, placements: Placements | None = None
) -> str:
    """The report of runs, many points or placements: no network, no other file.

    Everything read from files is escaped; the style, the script and the plotting
    library go in as they are, and the page allows no script but these.

    Args:
        study: What the page is about.
        placements: Expert placements to show as well.

    Raises:
        ConfigError: If a file of a run is malformed, or the page exceeds
            ``MAX_BYTES``.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    match study:
        case Placements():
            context = {**placements_text(study), **placements_context(study)}
        case Points():
            context = {**points_text(study), **points_context(study, placements)}
        case Study():
            context = {**text_context(study), **chart_context(study, placements)}
    scripts = [*library_scripts(), read_asset("page.js")]
    text = environment.from_string(read_asset("page.html")).render(
        **context,
        css=Markup(read_asset("page.css")),  # noqa: S704  (our own files)
        scripts=[Markup(script) for script in scripts],  # noqa: S704
        script_hashes=Markup(" ".join(map(script_hash, scripts))),  # noqa: S704
    )
    if (size := len(text.encode())) > MAX_BYTES:
        raise ConfigError(
            f"report of {study.title}: {size / 1e6:.1f} MB, more than"
            f" {MAX_BYTES / 1e6:.0f} MB; report fewer runs at a time"
        )
    return text


def write_page(
    study: Study | Points | Placements,
    path: Path,
    placements: Placements | None = None,
) -> None:
    """Write the report, whole or not at all.

    Raises:
        ConfigError: As :func:`render_page`, or if the file cannot be written.
    """
    write_atomic(path, render_page(study, placements).encode())
