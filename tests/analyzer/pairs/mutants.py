"""Finds every condition in a SQL text and makes, for each, the text without it.

A condition is an operand of AND or OR, a whole WHERE, ON or HAVING, an arm of a CASE, a FILTER, a semi or anti join,
or one arm of a UNION. Found mechanically by tokens and depth of parentheses, not by knowing SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)|(?P<text>'(?:[^']|'')*'|"[^"]*")|(?P<word>[A-Za-z_$][A-Za-z0-9_$.]*)"""
    r"""|(?P<number>[0-9][0-9_.e]*)|(?P<mark>\(|\)|\[|\]|\{|\}|,|[^\s\w])"""
)
_CLAUSES = {
    "WHERE",
    "GROUP",
    "HAVING",
    "ORDER",
    "QUALIFY",
    "UNION",
    "JOIN",
    "LEFT",
    "ASOF",
    "CROSS",
    "SEMI",
    "ANTI",
    "ON",
    "USING",
    "FROM",
    "SELECT",
    "AS",
    ";",
}
_STOPS = _CLAUSES | {"AND", "OR", "WHEN", "THEN", "ELSE", "END", ","}
_OPEN, _CLOSE = {"(", "[", "{"}, {")", "]", "}"}


@dataclass(frozen=True)
class Mutant:
    """`text` is the SQL without the condition `removed`, which stood on `line` (1-based)."""

    line: int
    removed: str
    text: str


@dataclass(frozen=True)
class _Token:
    value: str
    start: int
    end: int
    depth: int
    cases: int


def mutants(sql: str) -> list[Mutant]:
    """Every mutant of one SQL text, in order of place; the same text only once."""
    found: dict[str, Mutant] = {}
    for start, end, instead in _cuts(sql):
        text = f"{sql[:start]} {instead} {sql[end:]}"
        removed = " ".join(sql[start:end].split())
        found.setdefault(text, Mutant(sql.count("\n", 0, start) + 1, removed, text))
    return sorted(found.values(), key=lambda mutant: mutant.line)


def _tokens(sql: str) -> list[_Token]:
    tokens, depth, cases = [], 0, 0
    for match in _TOKEN.finditer(sql):
        if match.lastgroup == "space":
            continue
        value = match.group() if match.lastgroup != "word" else _keyword(match.group())
        if value in _CLOSE:
            depth -= 1
        if value == "END":
            cases -= 1
        tokens.append(_Token(value, match.start(), match.end(), depth, cases))
        if value in _OPEN:
            depth += 1
        if value == "CASE":
            cases += 1
    return tokens


def _keyword(word: str) -> str:
    return word.upper() if word.isupper() else word


def _cuts(sql: str) -> Iterator[tuple[int, int, str]]:
    tokens = _tokens(sql)
    for index, token in enumerate(tokens):
        match token.value:
            case "AND" | "OR":
                yield from _operands(tokens, index)
            case "WHERE" | "HAVING" | "ON":
                end = _until(tokens, index, _CLAUSES)
                yield token.end, end, "TRUE"
            case "WHEN":
                yield from _arm(tokens, index)
            case "FILTER":
                yield token.start, _until(tokens, index + 1, _CLOSE, inclusive=True), ""
            case "SEMI" | "ANTI":
                yield token.start, _until(tokens, index + 1, _CLAUSES - {"ON", "USING", "AS", "JOIN", "FROM"}), ""
            case "UNION":
                yield token.start, _until(tokens, index, {"UNION", ";"}), ""


def _operands(tokens: list[_Token], index: int) -> Iterator[tuple[int, int, str]]:
    """The connective with what stands to its right; with what stands to its left if that is the first operand."""
    token = tokens[index]
    if token.value == "AND" and _is_between(tokens, index):
        return
    yield token.start, _until(tokens, index, _STOPS), ""
    start = _since(tokens, index)
    if tokens[start - 1].value not in ("AND", "OR"):
        yield tokens[start].start, token.end, ""


def _is_between(tokens: list[_Token], index: int) -> bool:
    for token in reversed(tokens[:index]):
        if token.depth == tokens[index].depth and token.value in _STOPS:
            return False
        if token.depth == tokens[index].depth and token.value == "BETWEEN":
            return True
    return False


def _arm(tokens: list[_Token], index: int) -> Iterator[tuple[int, int, str]]:
    yield tokens[index].start, _until(tokens, index, {"WHEN", "ELSE", "END"}), ""
    # The only arm of a CASE cannot go; it can never be taken instead.
    yield tokens[index].end, _until(tokens, index, {"THEN"}), "FALSE"


def _until(tokens: list[_Token], index: int, stops: set[str], *, inclusive: bool = False) -> int:
    """Where the text after token `index` ends: before the next stop on its level, or the end of what encloses it."""
    here = tokens[index]
    for token in tokens[index + 1 :]:
        outside = token.depth < here.depth or token.cases < here.cases
        if outside or (token.depth == here.depth and token.cases <= here.cases and token.value in stops):
            return token.end if inclusive else token.start
    return tokens[-1].end


def _since(tokens: list[_Token], index: int) -> int:
    """The index of the first token of the operand before the connective at `index`."""
    here = tokens[index]
    for place in range(index - 1, -1, -1):
        token = tokens[place]
        if token.depth < here.depth or token.cases < here.cases:
            return place + 1
        beside = token.depth == here.depth and token.cases == here.cases
        if beside and token.value in _STOPS and not (token.value == "AND" and _is_between(tokens, place)):
            return place + 1
    return 0
