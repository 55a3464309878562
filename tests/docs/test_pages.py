"""Every block of every page runs, and prints what is shown below it."""

from __future__ import annotations

import re
import subprocess
from difflib import unified_diff
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.main import get_command

from sim.cli import app
from tests.docs.__main__ import rewrite
from tests.docs.pages import PAGES
from tests.docs.running import ROOT, Page, edited
from tests.docs.snippets import Block, blocks, commands

DOCUMENTS = (*PAGES, "DESIGN.md", "CHANGELOG.md", "reports/accuracy.md")


def _agrees(page: str, folder: Path, *, long: bool) -> None:
    wrong = Page(folder, blocks(ROOT / page)).run(long=long)
    said = [
        f"{difference.block.where} prints something else (python -m tests.docs):\n"
        + "".join(
            unified_diff(
                difference.block.text.splitlines(keepends=True),
                difference.printed.splitlines(keepends=True),
                "shown",
                "printed",
            )
        )
        for difference in wrong
    ]
    assert not said, "\n".join(said)


SLOW_PAGES = tuple(page for page in PAGES if page != "README.md")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=[pytest.mark.long] if p in SLOW_PAGES else [])
        for p in PAGES
    ],
)
def test_blocks_run_and_print_what_is_shown(page: str, tmp_path: Path) -> None:
    _agrees(page, tmp_path, long=False)


@pytest.mark.long
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.long for b in blocks(ROOT / page))]
)
def test_slow_blocks_run_and_print_what_is_shown(page: str, tmp_path: Path) -> None:
    _agrees(page, tmp_path, long=True)


@pytest.mark.parametrize("page", DOCUMENTS)
def test_links_and_pictures_are_there(page: str) -> None:
    """Every relative link is a file of the repository, every anchor a heading."""
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = unquote(target).partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in _anchors(path), f"{page}: {target}"


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_commands_named_in_the_readme_exist() -> None:
    """Also those that stand in a table because they wait for a GPU or a browser."""
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    text = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(r"`servescope ([a-z]+)", text))
    named |= set(re.findall(r"^(?:\$ )?servescope ([a-z]+)", text, re.M))
    assert {"run", "compare", "sweep", "report", "validate"} <= named <= known


def test_every_readme_beside_code_is_executed() -> None:
    """No page is forgotten in the list."""
    words = ["git", "ls-files", "*.md"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    pages = {name for name in listed.stdout.split() if Path(name).name == "README.md"}
    assert pages <= set(PAGES)


# The collector itself.


def _page(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "page.md"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```toml\na = 1\n```\n", "page.md:1: toml block that nothing runs"),
        ("```\nplain\n```\n", "plain block that nothing runs"),
        ("<!-- file: a -->\n```sh\n```\n", "sh block that nothing files"),
        ("```sh title\n```\n", "odd fence"),
        ("\n```sh\n", "page.md:2: never closed"),
    ],
)
def test_no_block_is_left_out(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blocks(_page(tmp_path, text))


WHOLE = """\
<!-- file: a.toml -->
```toml
seed = 3
```
```console
$ cat a.toml; echo \\
> two
seed = 3
WORD
```
```python
print("x" * 3)
```
<!-- output -->
```text
x...
```
<!-- long -->
```sh
false
```
"""


def test_a_page_is_run_and_rewritten(tmp_path: Path) -> None:
    """A wrong output is named and replaced, a right one is left alone."""
    page = _page(tmp_path, WHOLE)
    folder = tmp_path / "work"
    folder.mkdir()
    (wrong,) = Page(folder, blocks(page)).run(long=False)
    assert wrong.block.where == "page.md:5"
    assert rewrite(page, long=False) == 1
    assert page.read_text() == WHOLE.replace("WORD", "two")
    assert rewrite(page, long=False) == 0
    with pytest.raises(AssertionError, match=r"page\.md:19"):
        rewrite(page, long=True)


def test_output_needs_a_command() -> None:
    assert commands("$ a\nb\n$ c\n") == [("a", "b\n"), ("c", "")]
    with pytest.raises(ValueError, match="before any command"):
        commands("b\n")


def test_a_diff_must_fit() -> None:
    text = " a\n+b\n@@\n-c\n"
    block = Block(where="p:1", line=1, language="diff", text=text, action="edit")
    assert edited("a\nc\nd\n", block) == "a\nb\nd\n"
    with pytest.raises(AssertionError, match="not once"):
        edited("a\n", block)
