"""The little Markdown that generated sections are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown, their `|` and line breaks are made harmless."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def fenced(text: str, language: str = "text") -> str:
    """A block of code, in a fence longer than any inside it."""
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def code(text: object) -> str:
    """Inline code."""
    return f"`{text}`"


def codes(names: Iterable[object], *, none: str = "none") -> str:
    """Names as inline code, between commas."""
    return ", ".join(code(name) for name in names) or none


def link(text: str, target: str) -> str:
    return f"[{text}]({target})"


def anchor(heading: str) -> str:
    """The fragment by which a heading is linked to, as Markdown renderers of code hosts make it."""
    words = re.sub(r"[^\w\s-]", "", heading.strip().lower())
    return re.sub(r"\s", "-", words)


def value(data: object) -> str:
    """A value as TOML has it."""
    if isinstance(data, bool):
        return str(data).lower()
    return f"{data:_}" if isinstance(data, int) else f'"{data}"'


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
