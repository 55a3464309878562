"""Writing a figure to disk: whole or not at all, and the same bytes every time."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reports.style import paper_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What Matplotlib would write about itself; None leaves the entry out. The date makes
# two runs differ, the version two installations.
_METADATA: Final[dict[str, dict[str, Any]]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": "servescope"},
}


def save_figure(figure: Figure, directory: Path, stem: str) -> list[Path]:
    """Save a figure as PNG and SVG.

    Args:
        figure: The figure to draw; its layout stays as it is found.
        directory: An existing directory.
        stem: File name without its ending.

    Returns:
        The paths written, PNG first.

    Raises:
        OSError: A file cannot be written; no partial file is left behind.
    """
    paths = []
    for kind, metadata in _METADATA.items():
        drawn = BytesIO()
        with paper_style():
            figure.savefig(drawn, format=kind, metadata=metadata)
        figure.set_layout_engine("none")  # found once; it takes a third of the drawing
        path = directory / f"{stem}.{kind}"
        _write_atomically(path, drawn.getvalue())
        paths.append(path)
    return paths


def remove_figure(directory: Path, stem: str) -> None:
    """Delete what `save_figure` wrote under this name, if there is anything.

    Raises:
        OSError: A file cannot be deleted.
    """
    for kind in _METADATA:
        (directory / f"{stem}.{kind}").unlink(missing_ok=True)


def _write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target, flush to disk, then rename over it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
