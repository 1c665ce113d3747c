"""How messages about names that do not exist go on: with the nearest that does, or with all of them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

QUOTES = "'\""
MAX_SHOWN, MAX_NAMES = 80, 20


def instead(wrong: object, known: Iterable[str], otherwise: str = "there are") -> str:
    """`did you mean X?` if a known name is close to the wrong one, else `there are A, B.`"""
    names = list(known)
    close = get_close_matches(str(wrong)[:MAX_SHOWN], names, 1)
    if close:
        return f"did you mean {shown(close[0]).strip(QUOTES)}?"
    some = ", ".join(shown(name).strip(QUOTES) for name in names[:MAX_NAMES])
    return f"{otherwise} {some}{'' if len(names) <= MAX_NAMES else ', …'}."


def shown(value: object) -> str:
    """A user's value as a message may show it: escaped, and not longer than MAX_SHOWN."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def half_character(text: str) -> bool:
    """Whether a text holds a lone surrogate: JSON can say it, no file and no database can keep it."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)
