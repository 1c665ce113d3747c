"""What goes out beside an exported recording's spans, so that what is missing from it stays known.

OTLP has no place for gaps. They go first, as attributes of a resource that has no spans, which whoever does not know
them passes over. An import finds them there again, and learns how many spans the export had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fencepost_recorder.exporting.spans import Json
from fencepost_recorder.gaps import CAUSES, Gap
from fencepost_recorder.recording import Recording

_PREFIX = "fencepost.recording."
_ID = _PREFIX + "id"
_SHA256 = _PREFIX + "manifest.sha256"
_SPANS = _PREFIX + "spans"
_GAPS = _PREFIX + "gaps"
# A detail of 500 characters may be 3,000 bytes of JSON.
_GAPS_PER_MESSAGE = 100
_TEXT_LIMIT = 1000
_INT64_MAX = 2**63 - 1
# These an import finds again by itself, in the spans or by being one.
_FOUND_AGAIN = frozenset({"unsequenced", "conflicting_duplicate"})
_COUNTED_IN_SPANS = frozenset({"dropped_attributes", "dropped_events", "dropped_links"})


@dataclass(frozen=True, slots=True)
class Companion:
    """What an export says of the recording it was made of."""

    recording: str
    spans: int
    gaps: tuple[Gap, ...]


def companions(recording: Recording) -> Iterator[Json]:
    """The attributes of each resource that stands for the recording: one, unless it has many gaps."""
    gaps = [_attributes(row) for row in recording.gaps().to_pylist() if not _is_found_again(row)]
    head = {_ID: recording.id, _SHA256: recording.manifest.sha256, _SPANS: recording.manifest.spans}
    for start in range(0, max(len(gaps), 1), _GAPS_PER_MESSAGE):
        some = gaps[start : start + _GAPS_PER_MESSAGE]
        yield {**head, **({_GAPS: some} if some else {})}


def companion_in(resource_attributes: Mapping[str, Any]) -> Companion | None:
    """What a resource says of an exported recording; None when it says nothing of the kind."""
    name, spans = resource_attributes.get(_ID), resource_attributes.get(_SPANS)
    if not isinstance(name, str) or not _is_count(spans):
        return None
    said = resource_attributes.get(_GAPS)
    gaps = [_gap(one) for one in said] if isinstance(said, list) else []
    return Companion(name[:_TEXT_LIMIT], int(spans or 0), tuple(gap for gap in gaps if gap is not None))


def _is_found_again(gap: Mapping[str, Any]) -> bool:
    if gap["cause"] == "unsequenced" and gap["producer"] is None:
        return False  # Of clients that nobody ever heard of: no span in the file leads to them.
    # What a resource dropped has no place in the sequence; what a span dropped, it says itself.
    return gap["cause"] in _FOUND_AGAIN or (gap["cause"] in _COUNTED_IN_SPANS and gap["first_seq"] is not None)


def _attributes(gap: Mapping[str, Any]) -> Json:
    # Without the numbers of sequences: an import has others.
    names = ("cause", "producer", "since_unix_nano", "until_unix_nano", "lost", "detail")
    return {name: gap[name] for name in names if gap[name] is not None}


def _gap(said: Any) -> Gap | None:
    """A gap as an export says it; None when it is none. Whatever its fields hold was written by anybody."""
    if not isinstance(said, dict) or said.get("cause") not in CAUSES:
        return None
    producer, detail = said.get("producer"), said.get("detail")
    numbers = {name: said.get(name) for name in ("since_unix_nano", "until_unix_nano", "lost")}
    return Gap(
        said["cause"],
        producer[:_TEXT_LIMIT] if isinstance(producer, str) else None,
        detail=detail[:_TEXT_LIMIT] if isinstance(detail, str) else "",
        **{name: number for name, number in numbers.items() if _is_count(number)},
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _INT64_MAX
