"""Reads a page as a browser would, without one."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

import html5lib

_NAMESPACE = "{http://www.w3.org/1999/xhtml}"


def parsed(path: Path) -> Element:
    """The document; any parse error of HTML5 raises."""
    parser = html5lib.HTMLParser(strict=True)
    document: Element = parser.parse(path.read_text("utf-8"))
    return document


def elements(root: Element, name: str) -> list[Element]:
    """All elements of a name."""
    return list(root.iter(_NAMESPACE + name))


def with_attribute(root: Element, attribute: str) -> list[Element]:
    """All elements that carry an attribute."""
    return [element for element in root.iter() if attribute in element.attrib]


def text_of(element: Element) -> str:
    """Its words, with single spaces."""
    return " ".join("".join(element.itertext()).split())
