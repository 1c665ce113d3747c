"""Invariants: SQL files with a header, ours and the user's, loaded and checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fencepost_analyzer import sqlfiles
from fencepost_analyzer.database import EVENTS, directory
from fencepost_analyzer.errors import InvariantError
from fencepost_analyzer.sqlfiles import SqlFile

KEYS = ("id", "title", "severity", "principle", "polarity", "needs", "claim")
ANSWERED = "answered"
"""Stands for a column in `needs`: only events that were answered by yes, or may have been."""

SEVERITIES = ("critical", "high", "medium", "low")

_ID = re.compile(r"[A-Z][A-Z0-9]{1,15}-[0-9]{1,6}")
_PRINCIPLE = re.compile(r"P[1-5](, P[1-5])*")
_NEED = re.compile(r"([a-z_]{1,40})(?:\.([a-z_]{1,40}))?(?:\s+([1-9][0-9]{0,5}))?")


@dataclass(frozen=True)
class Kind:
    """Events of one kind; with `column`, only those that fill it, or were answered. At least `minimum` of them in a
    schedule."""

    event: str
    column: str | None
    minimum: int


@dataclass(frozen=True)
class Invariant:
    """One invariant. `needs`: each entry is a choice of kinds, one of which must be there for any verdict."""

    id: str
    title: str
    severity: str
    principle: str
    polarity: str
    claim: str
    needs: tuple[tuple[Kind, ...], ...]
    sql: str
    path: Path


def load(extra: Sequence[Path] = (), only: Collection[str] | None = None) -> tuple[Invariant, ...]:
    """Ours and those of the directories `extra`, by id; with `only`, just these ids. Raises SqlFileError for a
    broken file and InvariantError for an id that collides or does not exist."""
    found: dict[str, Invariant] = {}
    for invariant in (*_shipped(), *(_parse(file) for path in extra for file in _read(path))):
        if invariant.id in found:
            raise InvariantError(
                f"{invariant.path}: id {invariant.id} is taken by {found[invariant.id].path}: choose another."
            )
        found[invariant.id] = invariant
    unknown = sorted(set(only or ()) - set(found))
    if unknown:
        raise InvariantError(f"There is no invariant {unknown[0]}; there are {', '.join(sorted(found))}.")
    chosen = found if only is None else {key: value for key, value in found.items() if key in only}
    return tuple(chosen[key] for key in sorted(chosen))


@cache
def _shipped() -> tuple[Invariant, ...]:
    return tuple(_parse(file) for file in _read(directory("invariants")))


def _read(path: Path) -> tuple[SqlFile, ...]:
    return sqlfiles.read_all(path, required=KEYS)


def _parse(file: SqlFile) -> Invariant:
    header = file.header
    if not _ID.fullmatch(header["id"]):
        raise file.error("id", "an id looks like INV-001 or SHOP-7: capital letters, a hyphen, a number.")
    if header["severity"] not in SEVERITIES:
        raise file.error("severity", f"severity is one of {', '.join(SEVERITIES)}.")
    if not _PRINCIPLE.fullmatch(header["principle"]):
        raise file.error("principle", "principle is P1, P2, P3, P4 or P5.")
    if header["polarity"] not in ("+", "-"):
        raise file.error("polarity", "polarity is + (breaks by something seen) or - (by something absent).")
    needs = tuple(_choice(file, choice) for choice in header["needs"].split(","))
    fields = {key: header[key] for key in KEYS if key != "needs"}
    return Invariant(**fields, needs=needs, sql=file.sql, path=file.path)


def _choice(file: SqlFile, text: str) -> tuple[Kind, ...]:
    return tuple(_kind(file, part.strip()) for part in text.split("|"))


def _kind(file: SqlFile, text: str) -> Kind:
    match = _NEED.fullmatch(text)
    if match is None:
        raise file.error("needs", f"'{text}' is no need: write `event`, `event.column` or `event 2`, between commas.")
    event, column, minimum = match.groups()
    if column is not None and column not in (*EVENTS.names, ANSWERED):
        raise file.error("needs", f"events have no column '{column}'.")
    return Kind(event, column, int(minimum or 1))
