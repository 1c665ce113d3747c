"""postmortem.md: people's words and generated sections side by side, the second replaced without touching the first.

A section stands between `<!-- fencepost:begin NAME -->` and `<!-- fencepost:end NAME -->`, each on a line of its own.
What is generated never has such a line: it has no line breaks but ours, and every `<` of a recording is escaped or
stands behind other text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files

from fencepost_analyzer.postmortem.folder import PAGE, PostmortemError
from fencepost_analyzer.text import markdown

BLANK = "**To fill in"

_BEGIN = re.compile(r"<!-- fencepost:begin ([a-z]{1,40}) -->")


def template() -> str:
    """The page that every postmortem begins as."""
    return files("fencepost_analyzer").joinpath("templates/postmortem.md").read_text("utf-8")


def fill(number: str, title: str, date: str, sections: Mapping[str, str]) -> str:
    """A new page of the template."""
    text = template()
    for name, value in (("number", number), ("date", date), ("title", markdown(title))):
        text = text.replace("{{" + name + "}}", value)
    return replace(text, sections)


def replace(text: str, sections: Mapping[str, str]) -> str:
    """The page with these sections' content; everything else stays as it is, to the byte.

    Raises PostmortemError when a section's markers are gone."""
    require(text, sections)
    found = _locate(text)
    pieces, last = [], 0
    for name, (start, end) in sorted(found.items(), key=lambda entry: entry[1]):
        if name in sections:
            pieces += [text[last:start], sections[name].rstrip("\n") + "\n"]
            last = end
    return "".join([*pieces, text[last:]])


def require(text: str, names: Iterable[str]) -> None:
    """Raises PostmortemError when the page lacks one of these sections."""
    found = _locate(text)
    for name in names:
        if name not in found:
            raise PostmortemError(
                f"{PAGE} has lost its section {name}: put back the lines <!-- fencepost:begin {name} --> and "
                f"<!-- fencepost:end {name} -->."
            )


def extract(text: str) -> dict[str, str]:
    """Every generated section of a page by name, without markers and the line break before the last one."""
    return {name: text[start:end].removesuffix("\n") for name, (start, end) in _locate(text).items()}


def _locate(text: str) -> dict[str, tuple[int, int]]:
    """Name → where the section's content starts and ends. Raises PostmortemError for markers that do not pair."""
    found: dict[str, tuple[int, int]] = {}
    name, start, position = "", 0, 0
    for line in text.splitlines(keepends=True):
        stripped = line.strip()
        begins = _BEGIN.fullmatch(stripped)
        if name and stripped == f"<!-- fencepost:end {name} -->":
            found[name] = (start, position)
            name = ""
        elif begins is not None:
            if name or begins[1] in found:
                raise PostmortemError(f"{PAGE}: the section {begins[1]} begins twice, or inside of {name or 'itself'}.")
            name, start = begins[1], position + len(line)
        position += len(line)
    if name:
        raise PostmortemError(f"{PAGE}: the section {name} has no end: put back <!-- fencepost:end {name} -->.")
    return found
