"""What names of the code mean in words, kept in `words.toml`: the reference pages take them from here."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from fencepost_analyzer.docs.errors import DocsError


@cache
def words() -> dict[str, dict[str, str]]:
    return tomllib.loads(files(__package__).joinpath("words.toml").read_text("utf-8"))


def described(family: str, names: Iterable[str]) -> list[tuple[str, str]]:
    """(name, meaning) of each name, in order. Raises DocsError for a name without a meaning, or a meaning left over."""
    meanings = words()[family]
    wanted = list(names)
    for name in wanted:
        if name not in meanings:
            raise DocsError(f"words.toml has no [{family}] {name}: say in a few words what it means.")
    for name in meanings:
        if name not in wanted:
            raise DocsError(f"words.toml has a [{family}] {name} that the code does not know any more: remove it.")
    return [(name, meanings[name]) for name in wanted]
