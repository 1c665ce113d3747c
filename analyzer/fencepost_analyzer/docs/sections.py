"""A page: people's words, and generated sections between markers that are replaced without touching the rest.

A section stands between `<!-- fencepost:begin NAME -->` and `<!-- fencepost:end NAME -->`, each on a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fencepost_analyzer.docs.errors import DocsError

_MARKER = re.compile(r"^<!-- fencepost:(begin|end) ([A-Za-z0-9_-]{1,60}) -->$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """`heading` is what the section is put under when a page does not have it yet."""

    heading: str
    content: str


@dataclass(frozen=True, slots=True)
class Page:
    """`path` is relative to the checkout; `head` begins a page that is not there yet."""

    path: str
    head: str
    sections: Mapping[str, Section]


def fill(page: Page, text: str | None) -> str:
    """The page's text with its sections as they are to be; what stands outside of them stays to the byte.

    Raises DocsError for markers that do not pair and for a section that nothing generates any more."""
    text = page.head if text is None else text
    found = _locate(page.path, text)
    for name in found:
        if name not in page.sections:
            raise DocsError(f"{page.path} has a section {name} that nothing generates any more: remove it.")
    pieces, last = [], 0
    for name, (start, end) in sorted(found.items(), key=lambda entry: entry[1]):
        pieces += [text[last:start], _body(page.sections[name])]
        last = end
    pieces.append(text[last:])
    missing = [_whole(name, section) for name, section in page.sections.items() if name not in found]
    return "".join([*pieces, *missing])


def _locate(path: str, text: str) -> dict[str, tuple[int, int]]:
    """Name → where the section's content starts and ends."""
    found: dict[str, tuple[int, int]] = {}
    opened: tuple[str, int] | None = None
    for marker in _MARKER.finditer(text):
        kind, name = marker.groups()
        if kind == "begin" and opened is None and name not in found:
            opened = (name, marker.end() + 1)
        elif kind == "end" and opened is not None and opened[0] == name:
            found[name] = (opened[1], marker.start())
            opened = None
        else:
            raise DocsError(f"{path}: the markers of section {name} do not pair: each begin needs its own end.")
    if opened is not None:
        raise DocsError(f"{path}: section {opened[0]} has no end: put back <!-- fencepost:end {opened[0]} -->.")
    return found


def _body(section: Section) -> str:
    return f"\n{section.content.strip()}\n\n"


def _whole(name: str, section: Section) -> str:
    heading = f"\n{section.heading}\n" if section.heading else ""
    return f"{heading}\n<!-- fencepost:begin {name} -->\n{_body(section)}<!-- fencepost:end {name} -->\n"
