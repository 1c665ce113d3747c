"""docs/01-invariants.md: each promise as its own file states it, and what breaks it."""

from __future__ import annotations

from collections.abc import Iterator

from fencepost_analyzer.catalogue import FailureMode, failure_modes
from fencepost_analyzer.docs.markup import anchor, link, table
from fencepost_analyzer.docs.sections import Page, Section
from fencepost_analyzer.invariants import Invariant, Kind, load
from fencepost_analyzer.verdicts import span_needed

PATH = "docs/01-invariants.md"
POLARITIES = {"+": "breaks by something seen", "-": "breaks by something absent"}


def pages() -> Iterator[Page]:
    known = load()
    sections = {"invariants": Section("## All of them", _overview(known))}
    for one in known:
        sections[one.id] = Section(f"## {one.id} {one.title}", _invariant(one))
    yield Page(PATH, "# Invariants\n", sections)


def heading(one: Invariant) -> str:
    return f"{one.id} {one.title}"


def _overview(known: tuple[Invariant, ...]) -> str:
    rows = [
        [link(one.id, f"#{anchor(heading(one))}"), one.title, one.severity, one.principle, one.polarity]
        for one in known
    ]
    return table(["id", "promise", "severity", "principle", "polarity"], rows)


def _invariant(one: Invariant) -> str:
    broken = [link(mode.id, f"failure-modes/{mode.id}.md") for mode in failure_modes().values() if _breaks(mode, one)]
    lines = [
        f"- {one.severity}, {one.principle}, polarity {one.polarity}: {POLARITIES[one.polarity]}",
        f"- needs {_needs(one)}",
        f"- broken by {', '.join(broken) or 'no failure mode of the catalogue; the tests of it break it'}",
        f"- judged by {link(f'{one.id}.sql', f'../analyzer/fencepost_analyzer/invariants/{one.id}.sql')}",
    ]
    return f"> {one.claim}\n\n" + "\n".join(lines)


def _needs(one: Invariant) -> str:
    choices = [" or ".join(dict.fromkeys(_need(kind) for kind in choice)) for choice in one.needs]
    # "write, and write with a key" asks for the same span twice: the longer one says it.
    needed = [said for said in choices if not any(other != said and other.startswith(said) for other in choices)]
    return f"the spans {', and '.join(needed)}"


def _breaks(mode: FailureMode, one: Invariant) -> bool:
    return one.id in mode.violates or any(one.id in seeming.violates for seeming in mode.seems)


def _need(kind: Kind) -> str:
    words = span_needed(kind.event, kind.column)
    return f"{words} ({kind.minimum} or more)" if kind.minimum > 1 else words
