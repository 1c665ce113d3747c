"""JSON of the wrong shape is never lost in silence: attributes count as dropped, anything else is a poison span.

Each case goes both ways in: over HTTP, and through a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorder.receiving import JSON, gaps, receiving

from fencepost_recorder import Recording, begin, import_otlp

Way = Callable[[Any], Recording]
PYTHONS_WORDS = ("invalid literal", "iterable", "'int'", "object has no", "not supported", "Exceeds", "unhashable")


@pytest.fixture(params=["http", "import"])
def way(request: pytest.FixtureRequest, recordings: Path) -> Way:
    """Makes a recording of a document."""

    def over_http(document: Any) -> Recording:
        with receiving(begin(recordings, "shapes")) as lab:
            answer = lab.client().post(_text(document).encode(), kind=JSON)
            assert answer.status == 200
            recording = lab.seal()
        poison = sum(gap["lost"] for gap in gaps(recording, "poison_span"))
        assert answer.rejected == (poison or -1)
        assert not any(words in answer.body.decode() for words in PYTHONS_WORDS)
        return recording

    def through_a_file(document: Any) -> Recording:
        (file := recordings.parent / "shapes.json").write_text(_text(document))
        return import_otlp([file], recordings, "shapes", tool_version="1")

    return over_http if request.param == "http" else through_a_file


def _text(document: Any) -> str:
    return document if isinstance(document, str) else json.dumps(document)


def document(resource: Any = None, scope: Any = None, **span: Any) -> Any:
    """A span as it is given, and a good one."""
    spans = [{"traceId": f"{1:032x}", "spanId": f"{number:016x}", "startTimeUnixNano": "5"} for number in (1, 2)]
    spans[0] |= span
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]}


def spans_of(recording: Recording) -> list[str]:
    return sorted(row["span_id"][-1] for row in recording.spans().to_pylist())


SPANS: dict[str, tuple[Any, int]] = {
    "a map": ({"a": 1, "b": 2}, 2),
    "a text": ("x", 1),
    "a number": (0, 1),
    "an array of none": ([7, None, {"key": 1}], 3),
    "nothing": (None, 0),
    "an empty map": ({}, 0),
}


@pytest.mark.parametrize("what", SPANS)
def test_attributes_that_are_no_array_count_as_dropped(way: Way, what: str) -> None:
    """The span stays, and says how many it lost."""
    attributes, lost = SPANS[what]
    recording = way(document(attributes=attributes))
    assert spans_of(recording) == ["1", "2"]
    assert sum(row["dropped_attributes_count"] for row in recording.spans().to_pylist()) == lost
    assert sum(gap["lost"] for gap in gaps(recording, "dropped_attributes")) == lost


AROUND: dict[str, tuple[Any, Any, int]] = {
    "a resource in an array": ([1], None, 1),
    "a resource that is a text": ("x", None, 1),
    "a scope that is a text": (None, "lib", 1),
    "a resource of a map": ({"attributes": {"service.name": "s", "host.name": "h"}}, None, 2),
    "a scope of a map, with a count": (None, {"name": "lib", "attributes": {"a": 1}, "droppedAttributesCount": 3}, 4),
    "both": (7, False, 2),
    "nothing": (None, None, 0),
}


@pytest.mark.parametrize("what", AROUND)
def test_a_resource_or_scope_of_the_wrong_shape_is_a_gap(way: Way, what: str) -> None:
    """Its spans stay; what was to say whose they are counts as dropped attributes."""
    resource, scope, lost = AROUND[what]
    recording = way(document(resource, scope))
    assert spans_of(recording) == ["1", "2"]
    assert sum(gap["lost"] for gap in gaps(recording, "dropped_attributes")) == lost


POISONS: dict[str, tuple[dict[str, Any], str]] = {
    "a status that is a text": ({"status": "STATUS_CODE_ERROR"}, "its status is no object"),
    "a status that is an array": ({"status": [2]}, "its status is no object"),
    "a status that is false": ({"status": False}, "its status is no object"),
    "a status code that is none": ({"status": {"code": [2]}}, "its status code is none"),
    "a kind that is none": ({"kind": "SERVER_"}, "its kind is none: an integer that is none"),
    "a parent in an array": ({"parentSpanId": ["0"]}, "its parent span id is no hex of 8 bytes"),
    "an empty array as parent": ({"parentSpanId": []}, "its parent span id is no hex of 8 bytes"),
    "a time with an underscore": ({"endTimeUnixNano": "1_0"}, "its time is none"),
    "a time of other digits": ({"endTimeUnixNano": "٣"}, "its time is none"),
    "a time of 5,000 digits": ({"endTimeUnixNano": "9" * 5000}, "too many digits"),
    "events that are a number": ({"events": 7}, "its events are no array"),
    "events that are a text": ({"events": ""}, "its events are no array"),
    "links that are a map": ({"links": {"a": 1}}, "its links are no array"),
    "flags that are none": ({"flags": "x"}, "its flags cannot be read"),
    "a trace id that is none": ({"traceId": 7}, "its trace id is no hex of 16 bytes"),
}


@pytest.mark.parametrize("what", POISONS)
def test_a_span_of_the_wrong_shape_is_poison_and_says_why(way: Way, what: str) -> None:
    """In plain words: none of those that Python has for it."""
    changes, why = POISONS[what]
    recording = way(document(**changes))
    assert spans_of(recording) == ["2"]
    [gap] = gaps(recording, "poison_span")
    assert gap["lost"] == 1
    assert why in gap["detail"]
    assert not any(words in gap["detail"] for words in PYTHONS_WORDS)


@pytest.mark.parametrize("span", [7, "x", None, [1]])
def test_a_span_that_is_no_object_says_so(way: Way, span: Any) -> None:
    """It is counted as one span."""
    made = document()
    made["resourceSpans"][0]["scopeSpans"][0]["spans"].append(span)
    recording = way(made)
    assert spans_of(recording) == ["1", "2"]
    [gap] = gaps(recording, "poison_span")
    assert (gap["lost"], "is no object" in gap["detail"]) == (1, True)


def test_null_is_what_is_not_there(way: Way) -> None:
    """For every field that a span may lack."""
    lacking = dict.fromkeys(("parentSpanId", "status", "events", "links", "attributes", "kind", "flags", "name"))
    recording = way(document(**lacking))
    assert spans_of(recording) == ["1", "2"]
    assert {gap["cause"] for gap in recording.gaps().to_pylist()} == {"unsequenced"}


@pytest.mark.parametrize("none", ["", "0" * 16, "AAAAAAAAAAA="])
def test_a_parent_of_zeros_is_none(way: Way, none: str) -> None:
    """As some exporters have it; in base64 where the rest is base64."""
    recording = way(document(parentSpanId=none))
    assert spans_of(recording) == ["1", "2"]
    assert recording.spans()["parent_span_id"].null_count == 2


VALUES: dict[str, Any] = {
    "an integer with an underscore": {"intValue": "1_0"},
    "an integer with a space": {"intValue": " 1"},
    "an integer of other digits": {"intValue": "٣"},
    "a double with an underscore": {"doubleValue": "1_0.5"},
    "a list of no array": {"arrayValue": {"values": ""}},
    "a list in an array": {"arrayValue": []},
    "a map of no array": {"kvlistValue": {"values": 0}},
    "a map of a map": {"kvlistValue": {"values": {}}},
    "a map of no pairs": {"kvlistValue": {"values": [1]}},
}


@pytest.mark.parametrize("what", VALUES)
def test_a_value_of_the_wrong_shape_counts_as_dropped(way: Way, what: str) -> None:
    """It alone: its neighbours stay, and so do numbers written as text."""
    good = {"i": {"intValue": "-10"}, "d": {"doubleValue": "-1.5e3"}, "n": {"doubleValue": "-Infinity"}}
    pairs = [{"key": key, "value": value} for key, value in {"wrong": VALUES[what], **good}.items()]
    rows = way(document(attributes=pairs)).spans().to_pylist()
    assert [row["dropped_attributes_count"] for row in rows] == [1, 0]
    assert json.loads(rows[0]["span_attributes"]) == {"i": -10, "d": -1500.0, "n": "-Infinity"}


def test_a_number_without_end_damages_its_line_in_plain_words(recordings: Path, tmp_path: Path) -> None:
    """JSON has no limit for them; Python has."""
    lines = [json.dumps(document()), json.dumps(document(flags=0)).replace('"flags": 0', '"flags": ' + "9" * 5000)]
    (file := tmp_path / "long.jsonl").write_text("\n".join([lines[0], lines[1], lines[0]]))
    [gap] = gaps(import_otlp([file], recordings, tool_version="1"), "poison_span")
    assert gap["detail"].endswith("line 2 is damaged: it holds a number of too many digits")


FIRST, SECOND = (f'{{"traceId":"{1:032x}","spanId":"{number:016x}","startTimeUnixNano":"5"}}' for number in (1, 2))
ARRAYS = {
    "spans": f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{FIRST}],"spans":[{SECOND}]}}]}}]}}',
    "scopes": f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{FIRST}]}}],"scopeSpans":[{{"spans":[{SECOND}]}}]}}]}}',
    "scopes of two spellings": (
        f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{FIRST}]}}],"scope_spans":[{{"spans":[{SECOND}]}}]}}]}}'
    ),
    "resources": (
        f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{FIRST}]}}]}}],'
        f'"resourceSpans":[{{"scopeSpans":[{{"spans":[{SECOND}]}}]}}]}}'
    ),
    "spans and nothing": f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{FIRST},{SECOND}],"spans":null}}]}}]}}',
}


@pytest.mark.parametrize("what", ARRAYS)
def test_two_arrays_under_one_name_are_one(way: Way, what: str) -> None:
    """Python's parser, as most, would take the last for the only one, and nobody would know of the other."""
    recording = way(ARRAYS[what])
    assert spans_of(recording) == ["1", "2"]
    assert {gap["cause"] for gap in recording.gaps().to_pylist()} == {"unsequenced"}


TWICE = {
    "attributes": ('"attributes":[{"key":"a","value":{"intValue":1}}],"attributes":[{"key":"b","value":{}}]', 0, ""),
    "one value of two": ('"attributes":[{"key":"a","value":{"intValue":1,"intValue":2}}]', 1, ""),
    "the same name": ('"name":"x","name":"x"', 0, ""),
    "another name": ('"name":"x","name":"y"', 0, "it says different things under one name"),
    "another end": ('"endTimeUnixNano":"6","endTimeUnixNano":"7"', 0, "its time is none"),
    "another status": ('"status":{"code":1},"status":{"code":2}', 0, "its status is no object"),
}


@pytest.mark.parametrize("what", TWICE)
def test_what_a_span_says_twice_and_otherwise_is_never_left_out_in_silence(way: Way, what: str) -> None:
    more, dropped, why = TWICE[what]
    span = f"{FIRST[:-1]},{more}}}"
    recording = way(f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span},{SECOND}]}}]}}]}}')
    assert spans_of(recording) == (["2"] if why else ["1", "2"])
    assert sum(gap["lost"] for gap in gaps(recording, "dropped_attributes")) == dropped
    assert [why in gap["detail"] for gap in gaps(recording, "poison_span")] == [True] * bool(why)
    if what == "attributes":
        assert json.loads(recording.spans()["span_attributes"][0].as_py()).keys() == {"a", "b"}


def test_two_resources_of_one_are_none(way: Way) -> None:
    """Whose the spans are is not known then, and a gap says so."""
    one, other = (
        f'"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{n}"}}}}]}}' for n in "ab"
    )
    recording = way(f'{{"resourceSpans":[{{{one},{other},"scopeSpans":[{{"spans":[{FIRST}]}}]}}]}}')
    assert recording.spans()["producer"].to_pylist() == ["unknown"]
    assert sum(gap["lost"] for gap in gaps(recording, "dropped_attributes")) == 1
