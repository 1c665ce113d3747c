"""What is known to be missing, as rows of the `gaps` table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from fencepost_recorder import schema

CAUSES = (
    "sequence_break",
    "torn_tail",
    "write_failed",
    "still_recording",
    "unsequenced",
    "unrecorded",
    "sampled",
    "truncated",
    "clock_set",
    "refused",
    "not_in_file",
    "dropped_attributes",
    "dropped_events",
    "dropped_links",
    "conflicting_duplicate",
    "poison_span",
)
MAX_ROWS_PER_CAUSE = 256
MAX_ROWS = 100_000
_SEVERAL = "several: "


@dataclass(frozen=True, slots=True)
class Gap:
    """Something missing. Ranges are closed; None is unbounded or unknown; `lost` counts what its cause says."""

    cause: str
    producer: str | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    since_unix_nano: int | None = None
    until_unix_nano: int | None = None
    lost: int | None = None
    detail: str = ""


class Gaps:
    """Collects gaps; from the 256th of one producer and cause on they merge, so that memory stays bounded.

    From the hundred thousandth of all on, so do all others, those of new producers into gaps of anybody.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str | None, str], list[Gap]] = {}
        self._count = 0

    def add(self, gap: Gap) -> None:
        """Note a gap; one that lost nothing is none. One that ends before it begins is one of any time."""
        if gap.lost == 0:
            return
        gap, full = _timed(gap), self._count >= MAX_ROWS
        if full and (gap.producer, gap.cause) not in self._rows:
            gap = _of_anybody(gap)
        rows = self._rows.setdefault((gap.producer, gap.cause), [])
        if not rows or not (full or len(rows) >= MAX_ROWS_PER_CAUSE):
            rows.append(gap)
            self._count += 1
        else:
            rows[-1] = _merged(rows[-1], gap)

    def remove(self, gap: Gap) -> None:
        """Take back a gap that was noted; of several that were merged, what it lost."""
        gap = _timed(gap)
        for one in (gap, _of_anybody(gap)):
            rows = self._rows.get((one.producer, one.cause), [])
            if one in rows:
                rows.remove(one)
                self._count -= 1
                return
            if rows and rows[-1].detail.startswith(_SEVERAL) and rows[-1].lost is not None and gap.lost is not None:
                rows[-1] = replace(rows[-1], lost=max(rows[-1].lost - gap.lost, 1))
                return

    def __iter__(self) -> Iterator[Gap]:
        order = sorted(self._rows, key=lambda key: (key[0] is not None, key[0] or "", key[1]))
        return (gap for key in order for gap in self._rows[key])

    def __len__(self) -> int:
        return self._count

    def table(self) -> pa.Table:
        """The `gaps` table: by producer, then cause, then in the order they were noted."""
        rows: list[dict[str, Any]] = [asdict(gap) for gap in self]
        return pa.Table.from_pylist(rows, schema=schema.GAPS)


def _timed(gap: Gap) -> Gap:
    """The gap, without bounds in time that are none: the clock was set back meanwhile, or a span says so of itself."""
    since, until = gap.since_unix_nano, gap.until_unix_nano
    backwards = since is not None and until is not None and since > until
    return replace(gap, since_unix_nano=None, until_unix_nano=None) if backwards else gap


def _of_anybody(gap: Gap) -> Gap:
    return replace(gap, producer=None, first_seq=None, last_seq=None)


def _merged(one: Gap, other: Gap) -> Gap:
    lost = None if one.lost is None or other.lost is None else one.lost + other.lost
    text = one.detail if one.detail.startswith(_SEVERAL) else f"{_SEVERAL}{one.detail}"
    return replace(
        one,
        first_seq=_least(one.first_seq, other.first_seq),
        last_seq=_most(one.last_seq, other.last_seq),
        since_unix_nano=_least(one.since_unix_nano, other.since_unix_nano),
        until_unix_nano=_most(one.until_unix_nano, other.until_unix_nano),
        lost=lost,
        detail=text,
    )


def _least(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else min(one, other)


def _most(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)
