"""docs/reference/vocabulary.md: the spans that the runtime really emits, read from recordings of simulated runs."""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from fencepost_analyzer.database import EVENTS
from fencepost_analyzer.docs.errors import DocsError
from fencepost_analyzer.docs.markup import code, codes, table
from fencepost_analyzer.docs.sections import Page, Section
from fencepost_analyzer.docs.words import described, words
from fencepost_analyzer.run import run_simulated
from fencepost_analyzer.verdicts import SPAN_NAMES
from fencepost_runtime.scenario import Scenario

PATH = "docs/reference/vocabulary.md"
KINDS = {1: "INTERNAL", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
# Known to the mapping of the reference runtime, but nothing emits them.
SILENT = ("fail", "commit", "rollback")
# What only real processes have.
REAL: dict[str, tuple[str, set[str]]] = {
    "process.pid": ("whole number", {"crash", "pause", "resume"}),
    "db.system.name": ("text", {"write", "scenario"}),
}
TYPES = {str: "text", bool: "true or false", int: "whole number", list: "list of texts"}
_EVENT_OF = {
    "send": "enqueue",
    "receive": "lease",
    "process": "run",
    "settle": "ack",
}


def pages() -> Iterator[Page]:
    kinds, attributes = _emitted()
    sections = {
        "events": Section("## Events", _events(kinds)),
        "attributes": Section("## Attributes", _attributes(attributes)),
        "columns": Section("## The `events` table", _columns()),
    }
    yield Page(PATH, "# Vocabulary\n", sections)


def _emitted() -> tuple[dict[str, tuple[str, str]], dict[str, tuple[str, set[str]]]]:
    """Event → (span name, kind), and attribute → (type, events), of every span of the scenarios in vocabulary.toml."""
    kinds: dict[str, tuple[str, str]] = {}
    attributes: dict[str, tuple[str, set[str]]] = dict(REAL)
    data = tomllib.loads(files(__package__).joinpath("vocabulary.toml").read_text("utf-8"))
    with tempfile.TemporaryDirectory(prefix="fencepost-docs-") as scratch:
        for one in data["scenarios"]:
            spans = run_simulated(Scenario.from_dict(one), Path(scratch)).spans()
            for name, kind, text in zip(spans["name"], spans["kind"], spans["span_attributes"], strict=True):
                found = json.loads(text.as_py())
                event = _event(name.as_py(), found)
                kinds[event] = (_pattern(event), KINDS[kind.as_py()])
                for key, value in found.items():
                    attributes.setdefault(key, (TYPES[type(value)], set()))[1].add(event)
    return kinds, attributes


def _event(name: str, attributes: dict[str, Any]) -> str:
    word = name.split(" ", 1)[0]
    if word == "settle" and attributes.get("job.outcome") == "dead_letter":
        return "dead_letter"
    return _EVENT_OF.get(word, word)


def _pattern(event: str) -> str:
    return {"scan": "scan {queue}", "scenario": "scenario {id}"}.get(event) or SPAN_NAMES.get(event, event)


def _events(kinds: dict[str, tuple[str, str]]) -> str:
    known: set[str] = {*kinds, *SILENT} - {"scenario"}
    rows = []
    for event, meaning in described("events", sorted(known, key=_order)):
        name, kind = kinds.get(event, (_pattern(event), ""))
        rows.append([code(event), code(name), kind or "-", meaning])
    return table(["event", "span name", "kind", "meaning"], rows)


def _order(event: str) -> int:
    known = list(words()["events"])
    if event not in known:
        raise DocsError(f"words.toml has no [events] {event}: say in a few words what it means.")
    return known.index(event)


def _attributes(attributes: dict[str, tuple[str, set[str]]]) -> str:
    names = [name for name in words()["attributes"] if name in attributes]
    names += [name for name in attributes if name not in names]
    rows = []
    for name, meaning in described("attributes", names):
        kind, events = attributes[name]
        ordered: list[str] = sorted(events, key=_place)
        rows.append([code(name), kind, codes(ordered), meaning])
    return table(["attribute", "type", "on", "meaning"], rows)


def _place(event: str) -> int:
    return len(words()["events"]) if event == "scenario" else _order(event)


def _columns() -> str:
    rows = [[code(name), str(EVENTS.field(name).type), said] for name, said in described("columns", EVENTS.names)]
    return table(["column", "type", "meaning"], rows)
