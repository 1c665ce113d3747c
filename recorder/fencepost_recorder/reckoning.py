"""What a recording lacks, and who recorded it: from what was found in all of its units together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from fencepost_recorder.accounts import IMPORT_KIND, RECEIVER_KIND, SegmentAccount, durability_of, settle
from fencepost_recorder.conversion import Found
from fencepost_recorder.gaps import Gap, Gaps
from fencepost_recorder.manifest import Producer
from fencepost_recorder.named import MAX_NAMED
from fencepost_recorder.wal import MAX_SEQUENCE

_UNSEQUENCED = {
    IMPORT_KIND: ("imported: a file carries no sequence, so losses cannot be seen", "imported"),
    RECEIVER_KIND: ("received: a client numbers nothing, so what it never sent cannot be seen", "received"),
}
# Of those to whom `named.OTHERS` stands.
_OTHERS = f"by more than {MAX_NAMED:,} clients, of whom the others are not named"


@dataclass(frozen=True, slots=True)
class Reckoning:
    """Gaps and producers of a recording; when the first of its logs was begun, None without any."""

    gaps: Gaps
    producers: list[Producer]
    begun_unix_nano: int | None


def reckon(found: Found) -> Reckoning:
    """The account of a whole recording."""
    gaps, producers = found.gaps, []
    for gap in (*found.around.values(), *found.sampled.values()):
        gaps.add(gap)
    for segments in _by_producer(found.accounts):
        if segments[0].kind != IMPORT_KIND:
            producers.append(settle(segments, gaps))
    # Nothing numbers what a file or a client should have told, so nobody can know what is missing.
    for (producer, kind), spans in found.told.items():
        detail, ended = _UNSEQUENCED[kind]
        gaps.add(Gap("unsequenced", producer or None, detail=detail if producer else f"{detail} ({_OTHERS})"))
        producers.append(Producer(producer or "(others)", None, None, None, spans, None, ended, durability_of(kind)))
    begun = [one.header.started_unix_nano for one in found.accounts if one.header is not None]
    return Reckoning(gaps, sorted(producers, key=lambda one: one.producer), min(begun, default=None))


def _by_producer(accounts: list[SegmentAccount]) -> list[list[SegmentAccount]]:
    """The segments of each producer in their order; producers in the order in which they started."""
    ordered = sorted(accounts, key=lambda one: (one.producer, one.segment))
    groups = [list(group) for _, group in groupby(ordered, key=lambda one: one.producer)]
    return sorted(groups, key=lambda group: (_started(group), group[0].producer))


def _started(segments: list[SegmentAccount]) -> int:
    return min((one.header.started_unix_nano for one in segments if one.header is not None), default=MAX_SEQUENCE)
