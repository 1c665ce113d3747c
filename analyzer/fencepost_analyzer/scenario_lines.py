"""On which line of a scenario's file something stands: a scan of text that its parser has taken already.

Neither tomllib nor json tells where a value came from. What they have accepted is well formed, so that a scan of its
tokens is enough; where the scan finds nothing there is no line, rather than a wrong one.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

Path = tuple[str | int, ...]

# Strings first, the long ones before the short: nothing inside of them is a token of its own.
_TOML = (
    r'"""(?:\\.|[^\\])*?"{3,5}|'
    + r"'''.*?'{3,5}|"
    + r'"(?:\\.|[^"\\\n])*"|'
    + r"'[^'\n]*'|#[^\n]*|[A-Za-z0-9_.:+-]+|\n|."
)
_JSON = r'"(?:\\.|[^"\\])*"|[A-Za-z0-9_.+-]+|\n|.'
# Of these, only what tells keys, their objects and lines: of a large file the rest is passed over.
_KEYS = r'"(?:\\.|[^"\\])*"|[{}:\n]'
_BLANK = (" ", "\t", "\r")


def lines_of(content: str, suffix: str) -> dict[Path, int]:
    """The line, from 1, of every key, table and list entry of a TOML or JSON (`.json`) text by its path."""
    found: dict[Path, int] = {}
    try:
        if suffix == ".json":
            _Scan(_tokens(_JSON, content), ":", found).value(())
        else:
            _Scan(_tokens(_TOML, content), "=", found).document()
    except (StopIteration, RecursionError, ValueError, IndexError):
        """What was found before stands."""
    return found


def line_of(lines: Mapping[Path, int], path: Sequence[str | int]) -> tuple[int | None, Path]:
    """The line of what stands at the path, or of the innermost thing around it that has one; and the path of that."""
    for length in range(len(path), 0, -1):
        inner = tuple(path[:length])
        if inner in lines:
            return lines[inner], inner
    return None, ()


def given_twice(content: str) -> tuple[str, int] | None:
    """The first key that an object of a JSON text has a second time, and on which line: json would keep the last."""
    objects: list[set[str]] = []
    tokens = [token for token in _tokens(_KEYS, content) if token[0] != "\n"]
    for (token, line), (after, _) in pairwise(tokens):
        if token == "{":
            objects.append(set())
        elif token == "}":
            objects.pop()
        elif after == ":":
            key = json.loads(token)
            if key in objects[-1]:
                return key, line
            objects[-1].add(key)
    return None


def line_of_number(content: str, suffix: str, digits: int) -> int | None:
    """The line of the first whole number that has at least so many digits, in whatever base it is written."""
    number = re.compile(rf"[+-]?(?:0[xob])?[0-9A-Fa-f_]{{{digits},}}")
    if not number.search(content):
        return None
    tokens = [*_tokens(_JSON if suffix == ".json" else _TOML, content), ("\n", 0)]
    # A key of TOML may look like one.
    return next(
        (line for (token, line), (after, _) in pairwise(tokens) if after != "=" and number.fullmatch(token)), None
    )


def _tokens(pattern: str, content: str) -> list[tuple[str, int]]:
    """Each token with the line that it begins on; blanks and comments left out."""
    line, tokens = 1, []
    for match in re.finditer(pattern, content, re.DOTALL):
        token = match.group()
        if token not in _BLANK and not token.startswith("#"):
            tokens.append((token, line))
        line += token.count("\n")
    return tokens


class _Scan:
    """Goes through tokens and notes the lines of keys and list entries."""

    def __init__(self, tokens: list[tuple[str, int]], equals: str, found: dict[Path, int]) -> None:
        self._tokens = tokens
        self._at = 0
        self._equals = equals
        self._found = found
        # How many tables each list of tables has so far: [[faults]] is a new entry, [faults.at] one of its last.
        self._entries: dict[Path, int] = {}

    def document(self) -> None:
        """A TOML document: headers, and keys below them."""
        table: Path = ()
        while self._skip_lines():
            if self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)

    def value(self, path: Path) -> None:
        """One value, whose own line its key or its place in a list has told."""
        token, _ = self._next()
        if token == "{":
            self._inside("}", path, keyed=True)
        elif token == "[":
            self._inside("]", path, keyed=False)
        # A date may have a blank in it: whatever comes before the next of these belongs to the value.
        while self._at < len(self._tokens) and self._peek() not in ("\n", ",", "]", "}"):
            self._next()

    def _inside(self, end: str, path: Path, *, keyed: bool) -> None:
        number = 0
        while self._skip_lines(",") and self._peek() != end:
            if keyed:
                self._pair(path)
            else:
                self._found[*path, number] = self._tokens[self._at][1]
                self.value((*path, number))
                number += 1
        self._next()

    def _pair(self, table: Path) -> None:
        path = table
        for key, line in self._keys(self._equals):
            path = (*path, key)
            self._found.setdefault(path, line)
        # JSON allows a key twice: the last one counts.
        self._found[path] = line
        self._skip_lines()
        self.value(path)

    def _header(self) -> Path:
        """[table] or [[entry of a list]]: the path that the keys below it have."""
        self._next()
        of_list = self._peek() == "["
        if of_list:
            self._next()
        keys = list(self._keys("]"))
        if of_list:
            self._next()
        path: Path = ()
        for number, (key, line) in enumerate(keys):
            path = (*path, key)
            self._found.setdefault(path, line)
            if of_list and number == len(keys) - 1:
                self._entries[path] = self._entries.get(path, 0) + 1
            if path in self._entries:
                path = (*path, self._entries[path] - 1)
        self._found[path] = keys[-1][1]
        return path

    def _keys(self, end: str) -> Iterator[tuple[str, int]]:
        """The parts of a dotted key, up to what ends it."""
        while True:
            token, line = self._next()
            if token == end:
                return
            if self._equals == ":":
                yield json.loads(token), line
            elif token[0] in "\"'":
                yield tomllib.loads(f"key = {token}")["key"], line
            else:
                yield from ((part, line) for part in token.split(".") if part)

    def _skip_lines(self, also: str = "\n") -> bool:
        while self._at < len(self._tokens) and self._peek() in ("\n", also):
            self._at += 1
        return self._at < len(self._tokens)

    def _peek(self) -> str:
        return self._tokens[self._at][0]

    def _next(self) -> tuple[str, int]:
        self._at += 1
        return self._tokens[self._at - 1]
