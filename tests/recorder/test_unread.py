"""However much of a file cannot be read, all of it is counted, and what is written about it stays small."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recorder.receiving import gaps

from fencepost_recorder import import_otlp
from fencepost_recorder.gaps import Gap
from fencepost_recorder.otlp import Poison
from fencepost_recorder.unread import MAX_NOTES, Unread
from fencepost_recorder.wal import FrameType
from fencepost_recorder.writer import LogWriter

MANY = 30_000
GOOD = {"traceId": f"{1:032x}", "spanId": f"{1:016x}", "startTimeUnixNano": "5", "endTimeUnixNano": "9"}


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The notes that are written to logs."""
    written: list[bytes] = []
    append = LogWriter.append

    def appending(self: LogWriter, kind: FrameType, payload: bytes, *rest: Any) -> int:
        if kind is FrameType.NOTE:
            written.append(payload)
        return append(self, kind, payload, *rest)

    monkeypatch.setattr(LogWriter, "append", appending)
    yield written


def line(spans: str, service: str = "s") -> str:
    pair = {"key": "service.instance.id", "value": {"stringValue": service}}
    resource = json.dumps({"attributes": [pair]})
    return f'{{"resourceSpans":[{{"resource":{resource},"scopeSpans":[{{"spans":[{spans}]}}]}}]}}\n'


HOSTILE = {
    "numbers": line("1," * MANY + json.dumps(GOOD)),
    "empty objects": line("{}," * MANY + json.dumps(GOOD)),
    "lines of a number": line("1") * (MANY // 10) + line(json.dumps(GOOD)),
    "other producers": "".join(line("{}", f"p{number}") for number in range(MANY // 10)) + line(json.dumps(GOOD)),
    "damaged lines": line(json.dumps(GOOD)) + "{\n" * (MANY // 10) + "{}\n",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_small_file_of_much_that_cannot_be_read_does_not_fill_the_disk(
    recordings: Path, tmp_path: Path, notes: list[bytes], what: str
) -> None:
    """All is counted, in the manifest and, where it is known to be spans, in the gaps; the notes are few and short."""
    many = MANY if what in {"numbers", "empty objects"} else MANY // 10
    (file := tmp_path / "hostile.gz").write_bytes(gzip.compress(HOSTILE[what].encode()))
    recording = import_otlp([file], recordings, tool_version="1")
    assert (recording.manifest.spans, (recording.manifest.imported or {})["poison"]) == (1, many)
    assert len(notes) <= 300
    assert sum(map(len, notes)) < 200_000
    found = gaps(recording, "poison_span")
    if what == "damaged lines":
        assert {gap["lost"] for gap in found} == {None}
    else:
        assert sum(gap["lost"] for gap in found) == many


def noted(*poisons: tuple[Poison, str | None]) -> list[Gap]:
    """The notes beyond the first 200."""
    found: list[Gap] = []
    unread = Unread("file", found.append)
    for _ in range(MAX_NOTES):
        unread.add(Poison("early"), "p")
    for poison, producer in poisons:
        unread.add(poison, producer)
    assert len(found) == MAX_NOTES
    unread.close()
    return found[MAX_NOTES:]


def test_the_rest_is_as_wide_in_time_as_all_of_it() -> None:
    """Of one producer; a bound that is not known for one of them is none, nor are bounds that run backwards."""
    [gap] = noted((Poison("a", 2, 5, 9), "p"), (Poison("b", 1, 3, 7), "p"))
    assert (gap.producer, gap.since_unix_nano, gap.until_unix_nano, gap.lost) == ("p", 3, 9, 3)
    assert gap.detail == "file: 2 times more something could not be read, first this: a"
    for other in (Poison("b", 1, None, 7), Poison("b", 1, 9, 7)):
        for poisons in ((Poison("a", 1, 5, 9), other), (other, Poison("a", 1, 5, 9))):
            [gap] = noted(*((poison, "p") for poison in poisons))
            assert gap.since_unix_nano is None
            assert gap.until_unix_nano == (9 if other.since_unix_nano is None else None)


def test_the_rest_is_told_apart_by_producer_and_by_whether_its_number_is_known() -> None:
    """Up to some producers; beyond these nobody knows whose it was, and nothing is forgotten."""
    known, unknown = Poison("a", 1), Poison("b", None)
    found = noted((known, "p"), (known, "q"), (unknown, None), (known, "p"), (unknown, None))
    assert [(gap.producer, gap.lost) for gap in found] == [("p", 2), ("q", 1), (None, None)]
    found = noted(*((known, f"p{number}") for number in range(1000)), (unknown, None))
    assert len(found) == 34
    assert sum(gap.lost or 0 for gap in found) == 1000
    assert found[-1].lost is None


def test_nothing_unread_is_no_note() -> None:
    """Neither at the end, nor when exactly as much was unread as has a note of its own."""
    assert noted() == []
