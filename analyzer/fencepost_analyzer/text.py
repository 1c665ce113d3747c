"""Text for people: untrusted text made safe, and numbers, times and sizes made readable.

Whatever a recording, an attribute, a file name or an error says may have been written by an attacker. `safe` is the
one function through which such text reaches a terminal, `markdown` and `code` those through which it reaches a page.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches

LIMIT = 200
MESSAGE_LIMIT = 1_500
# More accents than this on one letter reach into the lines above and below.
_MAX_MARKS = 4
# Of what there may be very many, so many are named.
MANY = 8
_MARKDOWN = re.compile(r"[\\`*_\[\]|~#$]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}


def safe(value: object, limit: int | None = LIMIT) -> str:
    """`value` as text that a terminal shows as it is: whatever could act is spelled out as an escape (`\\x1b`), and
    no more than `limit` characters of the original are shown, the last of them an ellipsis.

    Escaped are control characters, line breaks, bidirectional overrides, invisible and private characters, lone
    surrogates, and accents piled up beyond four."""
    text = str(value)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(text))


def _visible(text: str) -> Iterable[str]:
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        shown = character.isprintable() and marks <= _MAX_MARKS
        yield character if shown else character.encode("unicode_escape").decode("ascii")


def sentence(message: object) -> str:
    """An error's message as one line that ends like a sentence."""
    line = safe(" ".join(str(message).split()), MESSAGE_LIMIT) or "something went wrong"
    return line if line[-1] in ".!?…" else line + "."


def told(clause: str) -> str:
    """A clause as a sentence; a name at its beginning, such as that of an actor, stays as it is."""
    first, _, _ = clause.partition(" ")
    return f"{clause[0].upper()}{clause[1:]}." if first.isalpha() else f"{clause}."


def markdown(value: object, limit: int | None = LIMIT) -> str:
    """`value` as Markdown that shows it and does nothing: no markup, HTML, links or table cells."""
    text = _MARKDOWN.sub(r"\\\g<0>", safe(value, limit))
    for character, entity in _ENTITIES.items():
        text = text.replace(character, entity)
    return text.replace("://", "&#58;//").replace("www.", "www&#46;")


def code(value: object, limit: int | None = LIMIT) -> str:
    """`value` as Markdown's inline code, in a fence longer than any inside it; fit for a table's cell."""
    text = safe(value, limit).replace("|", "\\|") or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def width(text: str) -> int:
    """The columns that a terminal needs for safe text."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """ "1 span", "12,345 spans", "no spans"."""
    many = plural or noun + "s"
    return f"no {many}" if number == 0 else f"{number:,} {noun if number == 1 else many}"


def listed(names: Sequence[str], *, empty: str = "none") -> str:
    """ "a", "a and b", "a, b and c"."""
    if not names:
        return empty
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def some(names: Sequence[str]) -> str:
    """All of a few names; of many the first, and how many more there are."""
    more = [f"{len(names) - MANY:,} more"] if len(names) > MANY else []
    return listed([*names[:MANY], *more])


def duration(nanoseconds: int) -> str:
    """A length of time in the unit that suits it: "0.4 ms", "12.3 ms", "1.25 s", "3 min 20 s"."""
    milliseconds = nanoseconds / 1e6
    if abs(milliseconds) < 1_000:
        return f"{milliseconds:.1f} ms"
    seconds = milliseconds / 1_000
    if abs(seconds) < 120:
        return f"{seconds:.2f} s"
    minutes = int(seconds // 60)
    if abs(minutes) < 120:
        return f"{minutes:,} min {seconds % 60:.0f} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def offset(nanoseconds: int) -> str:
    """Milliseconds since a beginning, as timelines print them: "+1,234.5 ms"."""
    return f"{nanoseconds / 1e6:+,.1f} ms"


def size(count: int) -> str:
    """Bytes in the unit that suits them: "812 B", "3.4 kB", "1.2 MB" (powers of 1,000)."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1_000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1_000
    return f"{value:,.1f} GB"


def moment(when: datetime) -> str:
    """A point in time, always in UTC: the same on every machine that looks."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def nearest(name: str, known: Iterable[str], *, see: str) -> str:
    """The hint for a name that does not exist: the nearest that do, or where to look (`see`, a command)."""
    names = list(known)
    by_folded = {one.casefold(): one for one in names}
    close = get_close_matches(name.casefold(), list(by_folded), 3, 0.5)
    if close:
        return f"did you mean {' or '.join(by_folded[one] for one in close)}?"
    return f"see `{see}`"


# What a gap's `lost` counts, where that is not spans; of those without a word nothing is missing.
_LOST = {
    # A span is a frame at its start and another at its end.
    "write_failed": "frame",
    "sequence_break": "frame",
    "clock_set": "",
    "truncated": "attribute value",
    "dropped_attributes": "attribute",
    "dropped_events": "event",
    "dropped_links": "link",
    "refused": "request",
}


def lost(cause: str, count: int | None) -> str:
    """How much the gaps of one cause lost, None where that is not known: `3 spans lost`, `nothing lost`."""
    what = _LOST.get(cause, "span")
    if not what:
        return "nothing lost"
    became = "cut" if cause == "truncated" else "lost"
    return f"{counted(count, what)} {became}" if count is not None else f"an unknown number of {what}s {became}"
