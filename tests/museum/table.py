"""The table of planted bugs; ``python -m tests.museum.table`` writes it again."""

from __future__ import annotations

from pathlib import Path

from tests.museum.bugs import BUGS

TABLE = Path(__file__).with_name("museum.md")
_HEAD = """# Bugs of other simulators that this test suite catches
Written by `python -m tests.museum.table` from `tests/museum/bugs.py`; that every bug is
caught is shown by `pytest -m long tests/museum`.

| # | bug | planted in | caught by |
|---|---|---|---|
"""


def table_text() -> str:
    """The table as Markdown."""
    rows = [f"| {b.number} | {b.history} | `{b.file}` | `{b.test}` |\n" for b in BUGS]
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    TABLE.write_text(table_text(), encoding="utf-8")
