"""Spans of clients from before OTLP 0.15 are not read, and never lost in silence, whichever way they come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from recorder.hostile import framed
from recorder.receiving import JSON, PROTOBUF, gaps, json_of, numbers, receiving, request_of

from fencepost_recorder import ImportFailed, begin, import_otlp

OLD = "before 0.15"


def as_json(name: str) -> bytes:
    """A request whose first resource has a new span and two old ones, its second one a new span and no old one."""
    documents = [json_of(request_of(range(number, number + 1), service)) for number, service in ((0, "a"), (3, "b"))]
    first, second = (document["resourceSpans"][0] for document in documents)
    old = json_of(request_of(range(1, 3)))["resourceSpans"][0]["scopeSpans"][0]["spans"]
    first[name] = [{"instrumentationLibrary": {"name": "x"}, "spans": old}, {"spans": []}, {}]
    second[name] = []
    return json.dumps({"resourceSpans": [first, second]}).encode()


def as_protobuf() -> bytes:
    """The same in protobuf, where the field has the number 1000."""
    made = []
    for number, service in ((0, "a"), (3, "b")):
        request = request_of(range(number, number + 1), service)
        made.append(request.resource_spans[0].SerializeToString())
    spans = request_of(range(1, 3)).resource_spans[0].scope_spans[0].spans
    library = framed(b"\x0a", framed(b"\x0a", b"x"))
    old = library + b"".join(framed(b"\x12", span.SerializeToString()) for span in spans)
    made[0] += framed(b"\xc2\x3e", old) + framed(b"\xc2\x3e", library)
    return b"".join(framed(b"\x0a", one) for one in made)


BODIES: dict[str, tuple[Callable[[], bytes], str]] = {
    "JSON": (lambda: as_json("instrumentationLibrarySpans"), JSON),
    "JSON with the proto's names": (lambda: as_json("instrumentation_library_spans"), JSON),
    "protobuf": (as_protobuf, PROTOBUF),
}


def check(recording: Any) -> None:
    assert numbers(recording) == [0, 3]
    [gap] = gaps(recording, "poison_span")
    assert (gap["producer"], gap["lost"]) == ("a", 2)
    assert OLD in gap["detail"]


@pytest.mark.parametrize("name", BODIES)
def test_the_receiver_rejects_them_and_notes_them(recordings: Path, name: str) -> None:
    """`partial_success` says how many and why, a gap says whose; new spans beside them are kept."""
    make, kind = BODIES[name]
    with receiving(begin(recordings, "received")) as lab:
        answer = lab.client().post(make(), kind=kind)
        assert (answer.status, answer.rejected) == (200, 2)
        assert OLD in answer.body.decode("utf-8", "replace")
        check(lab.seal())


@pytest.mark.parametrize("name", BODIES)
def test_an_import_counts_them_as_poison(recordings: Path, tmp_path: Path, name: str) -> None:
    """In the gap of their producer, and in the manifest; their bytes are not kept with the resource."""
    (file := tmp_path / "old").write_bytes(BODIES[name][0]())
    recording = import_otlp([file], recordings, tool_version="1")
    check(recording)
    assert (recording.manifest.imported or {})["poison"] == 2


def test_a_file_of_nothing_else_is_refused_with_the_reason(recordings: Path, tmp_path: Path) -> None:
    """There is no span to make a recording of, and the user learns why."""
    message = ExportTraceServiceRequest.FromString(as_protobuf())
    del message.resource_spans[1:], message.resource_spans[0].scope_spans[:]
    for number, content in enumerate((message.SerializeToString(), _only_old_json())):
        (file := tmp_path / f"{number}").write_bytes(content)
        with pytest.raises(ImportFailed, match=OLD):
            import_otlp([file], recordings, tool_version="1")


def _only_old_json() -> bytes:
    document = json.loads(as_json("instrumentationLibrarySpans"))
    document["resourceSpans"] = [document["resourceSpans"][0] | {"scopeSpans": None}]
    return json.dumps(document).encode()


def test_spans_that_are_no_array_are_a_gap_of_an_import(recordings: Path, tmp_path: Path) -> None:
    """How many they were nobody knows; what follows in the file is kept."""
    good = json_of(request_of(range(1)))
    lines = [
        {"resourceSpans": [{name: [{"spans": {"0": {}}}]}]} for name in ("scopeSpans", "instrumentationLibrarySpans")
    ]
    (file := tmp_path / "map.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (*lines, good)))
    recording = import_otlp([file], recordings, tool_version="1")
    assert numbers(recording) == [0]
    found = gaps(recording, "poison_span")
    assert [gap["lost"] for gap in found] == [None, None]
    assert all("spans is no array" in gap["detail"] for gap in found)
