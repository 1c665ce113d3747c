"""Make an example file of a story's span files: one line a process, and nothing that says where it ran.

Run as `python scrub.py SPAN_FILE… > data/celery.jsonl` on files that the stock OTLP/JSON file exporter wrote.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

Json = dict[str, Any]

# An exception's stack trace names the files of the machine.
UNWANTED = {"exception.stacktrace"}
INSTANCES = uuid.UUID("f0e1d2c3-0000-4000-8000-000000000000")


def spans_of(lines: list[Json]) -> list[Json]:
    return [
        span
        for line in lines
        for resource in line["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def start(lines: list[Json]) -> int:
    return min(int(span["startTimeUnixNano"]) for span in spans_of(lines))


def without_traces(attributes: list[Json]) -> list[Json]:
    return [pair for pair in attributes if pair["key"] not in UNWANTED]


def scrubbed(span: Json) -> Json:
    """Celery names a producer `gen{pid}@{host}`."""
    for event in span.get("events", []):
        event["attributes"] = without_traces(event.get("attributes", []))
    text = re.sub(r"gen\d+@[^\"]+", "gen1@one", json.dumps(span))
    plain: Json = json.loads(text)
    return plain


def one_line(lines: list[Json], instance: int) -> Json:
    """All spans of one process under one resource and scope, in the order they started."""
    (resource,) = lines[0]["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    for pair in resource["resource"]["attributes"]:
        if pair["key"] == "service.instance.id":
            pair["value"] = {"stringValue": str(uuid.uuid5(INSTANCES, str(instance)))}
    spans = sorted(map(scrubbed, spans_of(lines)), key=lambda span: int(span["startTimeUnixNano"]))
    return {"resourceSpans": [{**resource, "scopeSpans": [{**scope, "spans": spans}]}]}


def scrub(files: list[Path]) -> list[str]:
    """The lines of the example, by the start of each process's first span."""
    texts = [file.read_text("utf-8") for file in files]
    processes = sorted(([json.loads(line) for line in text.splitlines()] for text in texts if text), key=start)
    return [json.dumps(one_line(lines, instance), separators=(",", ":")) for instance, lines in enumerate(processes)]


if __name__ == "__main__":
    sys.stdout.writelines(line + "\n" for line in scrub([Path(name) for name in sys.argv[1:]]))
