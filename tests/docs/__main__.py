"""Writes what the documentation's commands print into its pages again.

::

    python -m tests.docs            # every page; --long: with the slow blocks too
    python -m tests.docs README.md

For outputs that changed on purpose. A ``...`` in a rewritten output is lost; put it
back where times or paths stand.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.docs.pages import PAGES
from tests.docs.running import ROOT, Page
from tests.docs.snippets import blocks


def rewrite(path: Path, *, long: bool) -> int:
    """Run a page and put in what it printed; how many blocks changed."""
    found = blocks(path)
    with TemporaryDirectory() as folder:
        wrong = Page(Path(folder), found).run(long=long)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    for difference in reversed(wrong):
        block = difference.block
        end = block.line + len(block.text.splitlines())
        lines[block.line : end] = [difference.printed]
    if wrong:
        path.write_text("".join(lines), "utf-8")
    return len(wrong)


def main() -> None:
    """Rewrite the pages of the command line, by default all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", default=list(PAGES))
    parser.add_argument("--long", action="store_true")
    given = parser.parse_args()
    for page in given.pages:
        changed = rewrite(ROOT / page, long=given.long)
        sys.stdout.write(f"{page}: {changed} block(s) rewritten\n")


if __name__ == "__main__":
    main()
