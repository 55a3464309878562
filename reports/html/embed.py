"""From Bokeh figures to the JSON that a page embeds: the same bytes each time."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bokeh.core.json_encoder import serialize_json
from bokeh.document import Document
from bokeh.resources import Resources

from reports.html.charts.base import Figure

_COMPONENTS: Final = ("bokeh",)


def library_scripts() -> list[str]:
    """The JavaScript of the plotting library, to be written into the page."""
    found = Resources(mode="inline", components=list(_COMPONENTS)).js_raw
    return [text for text in found if not text.startswith("Bokeh.")]


def document_json(charts: Sequence[Figure]) -> str:
    """All charts as one document, safe inside a script element.

    The library numbers models as they are made in a process; here they are numbered
    as they appear, so the text depends on the charts alone.
    """
    document = Document()
    with document.models.freeze():  # or all models are counted again for each
        for chart in charts:
            document.add_root(chart)
    plain = json.loads(serialize_json(document.to_json(deferred=False)))
    return script_json(_renumbered(plain, {}))


def script_hash(script: str) -> str:
    """How a content security policy allows this inline script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def script_json(value: object) -> str:
    """JSON that cannot end its script element nor open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _renumbered(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _new_name(item, names)
            if key == "id" and isinstance(item, str)
            else _renumbered(item, names)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_renumbered(item, names) for item in value]
    return value


def _new_name(name: str, names: dict[str, str]) -> str:
    return names.setdefault(name, f"m{len(names)}")


def read_asset(name: str) -> str:
    """A file of ``assets``."""
    return (Path(__file__).parent / "assets" / name).read_text("utf-8")
