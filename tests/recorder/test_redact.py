"""Only what an allow-list names is kept, whichever way a span comes, and nothing else ever reaches a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanContext, StatusCode
from recorder.receiving import JSON, body_of, json_of, receiving, request_of

from fencepost_recorder import RecorderError, Recording, RecordingSpanProcessor, begin, encode, open_recording, seal
from fencepost_recorder.redact import IDENTITY, KEEP_VARIABLE, Keep
from fencepost_recorder.told import Told

SECRET = "hunter2"
KEPT = Keep.parse("job.*, number")


@pytest.fixture
def directory(recordings: Path) -> Path:
    return begin(recordings, "kept")


def secretive() -> ExportTraceServiceRequest:
    """A request that has a secret wherever an attribute, or a message, may be."""
    request = request_of(range(3))
    resource = request.resource_spans[0]
    scope = resource.scope_spans[0]
    pairs = [resource.resource.attributes, scope.scope.attributes]
    for span in scope.spans:
        pairs += [span.attributes, span.events.add(name="exception").attributes]
        link = span.links.add(trace_id=bytes([1] * 16), span_id=bytes([2] * 8))
        pairs.append(link.attributes)
        span.status.code, span.status.message = 2, SECRET
    for attributes in pairs:
        attributes.add(key="password").value.string_value = SECRET
        attributes.add(key="job.name").value.string_value = "mail"
        attributes.add(key="exception.message").value.string_value = SECRET
        nested = attributes.add(key="http.headers").value.kvlist_value.values.add(key="job.name")
        nested.value.string_value = SECRET
    return request


def check(recording: Recording) -> None:
    """Nothing of the secret is anywhere, and what was named is everywhere."""
    for row in recording.spans().to_pylist():
        assert SECRET not in str(row)
        assert json.loads(row["span_attributes"]).items() >= {"job.name": "mail"}.items()
        assert json.loads(row["events_json"])[0]["attributes"] == {"job.name": "mail"}
        assert json.loads(row["links_json"])[0]["attributes"] == {"job.name": "mail"}
        assert json.loads(row["scope_attributes"]) == {"job.name": "mail"}
        assert set(json.loads(row["resource_attributes"])) <= {"job.name", *IDENTITY}
        assert (row["status_code"], row["status_status_message"]) == (2, None)
        assert row["service_name"] == "shop"
    assert recording.spans().num_rows == 3
    assert [one.kept for one in recording.manifest.producers if one.pid is not None] == [KEPT.patterns]


@pytest.mark.parametrize("kind", ["protobuf", "json"])
def test_what_is_received_is_reduced_before_it_is_written(directory: Path, kind: str) -> None:
    """Resources, scopes, spans, events, links and status messages: no file ever holds the rest."""
    with receiving(directory, keep=KEPT) as lab:
        client = lab.client()
        if kind == "json":
            answer = client.post(json.dumps(json_of(secretive())).encode(), kind=JSON)
        else:
            answer = client.post(secretive().SerializeToString())
        assert (answer.status, answer.rejected) == (200, -1)
        lab.receiver.stop()
        assert all(SECRET.encode() not in path.read_bytes() for path in (directory / "wal").iterdir())
        check(lab.seal())


def test_fields_that_a_newer_protocol_may_have_are_not_kept(directory: Path) -> None:
    """Nobody can know what is in them."""
    span = request_of(range(1)).resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    span += b"\xaa\x3f" + bytes([len(SECRET)]) + SECRET.encode()
    scope = b"\x12" + bytes([len(span)]) + span
    resource = b"\x12" + bytes([len(scope)]) + scope
    body = b"\x0a" + bytes([len(resource)]) + resource
    with receiving(directory, keep=KEPT) as lab:
        assert lab.client().post(body).status == 200
        lab.receiver.stop()
        assert all(SECRET.encode() not in path.read_bytes() for path in (directory / "wal").iterdir())
        assert lab.seal().spans().num_rows == 1


def tell(processor: RecordingSpanProcessor) -> None:
    resource = Resource({"service.name": "shop", "password": SECRET, "job.name": "mail"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("lab", attributes={"password": SECRET, "job.name": "mail"})
    secret = {"password": SECRET, "job.name": "mail", "http.headers": [SECRET]}
    other = Link(SpanContext(5, 6, is_remote=True), secret)
    for number in range(3):
        span = tracer.start_span("work", attributes={**secret, "number": number}, links=[other])
        span.set_attribute("password.again", SECRET)
        span.set_attribute("job.attempt", number)
        span.record_exception(ValueError(SECRET), attributes={"job.name": "mail"})
        span.set_status(StatusCode.ERROR, SECRET)
        span.end()
    provider.shutdown()


def test_what_a_process_records_is_reduced_before_it_is_written(directory: Path) -> None:
    """Starts and ends alike."""
    tell(RecordingSpanProcessor(directory / "wal", keep=KEPT))
    assert all(SECRET.encode() not in path.read_bytes() for path in (directory / "wal").iterdir())
    seal(directory, tool_version="0.0.test")
    recording = open_recording(directory)
    check(recording)
    attributes = [json.loads(text) for text in recording.spans()["span_attributes"].to_pylist()]
    assert attributes == [{"job.name": "mail", "number": number, "job.attempt": number} for number in range(3)]


def test_the_environment_says_what_is_kept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So programs that know nothing of fencepost can be told; the receiver heeds it too."""
    monkeypatch.setenv(KEEP_VARIABLE, "number job.*")
    tell(RecordingSpanProcessor(directory / "wal"))
    with receiving(directory) as lab:
        assert lab.client().post(secretive().SerializeToString()).status == 200
    assert all(SECRET.encode() not in path.read_bytes() for path in (directory / "wal").iterdir())


def test_without_a_list_everything_is_kept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the manifest says so."""
    monkeypatch.setenv(KEEP_VARIABLE, "")
    with receiving(directory) as lab:
        body = body_of(range(3))
        assert lab.client().post(body).status == 200
        lab.receiver.stop()
        assert any(body in path.read_bytes() for path in (directory / "wal").iterdir())
        assert {one.kept for one in lab.seal().manifest.producers} == {None}


def test_a_list_of_blanks_is_an_error(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets it wants something to be left out."""
    monkeypatch.setenv(KEEP_VARIABLE, " ")
    with pytest.raises(RecorderError, match="is empty"):
        RecordingSpanProcessor(directory / "wal")


def test_what_the_supervisor_saw_is_evidence_whatever_is_kept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A death without pid and signal would end nobody's attempt."""
    monkeypatch.setenv(KEEP_VARIABLE, "job.*")
    told = Told(directory / "wal")
    told.event("crash", {"process.pid": 17, "process.signal": "SIGKILL"})
    told.end({})
    [row] = seal(directory, tool_version="test").spans().to_pylist()
    assert json.loads(row["span_attributes"]) == {"process.pid": 17, "process.signal": "SIGKILL"}


def test_a_span_that_cannot_be_encoded_is_reduced_too(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of it when its attributes are beyond encoding has no message either."""

    def broken(_: Any) -> dict[str, Any]:
        raise RuntimeError

    monkeypatch.setattr(encode, "attributes_of", broken)
    tell(RecordingSpanProcessor(directory / "wal", keep=KEPT))
    seal(directory, tool_version="0.0.test")
    rows = open_recording(directory).spans().to_pylist()
    assert len(rows) == 3
    assert all((row["status_code"], row["span_attributes"]) == (2, "{}") for row in rows)
    assert SECRET not in str(rows)


@pytest.mark.parametrize("bad", ["", " , ", "*", "job*", "job.*.name", "*.name", "job.**", "j\u00f6b.*", "a" * 40_000])
def test_a_list_that_names_nothing_is_refused(bad: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In one sentence; a list that is not understood never means that all is kept."""
    with pytest.raises(RecorderError) as refused:
        Keep.parse(bad)
    assert "\n" not in str(refused.value)
    if bad.strip():
        monkeypatch.setenv(KEEP_VARIABLE, bad)
        with pytest.raises(RecorderError):
            RecordingSpanProcessor(tmp_path)


KEYS = st.sampled_from(["a", "a.b", "a.b.c", "ab", "a.", "b", "A.b", ""])


@given(st.lists(KEYS.filter(lambda key: key and not key.endswith(".")), min_size=1), st.lists(st.booleans()), KEYS)
def test_a_key_is_kept_if_it_is_named_or_begins_as_one_that_is(names: list[str], starred: list[bool], key: str) -> None:
    """`job.*` means `job.` and whatever follows, not `job` itself, nor `jobs`."""
    patterns = [name + ".*" * star for name, star in zip(names, starred + [False] * len(names), strict=False)]
    keep = Keep(patterns)
    expected = any(key == one or (one.endswith(".*") and key.startswith(one[:-1])) for one in patterns)
    assert keep.keeps(key) is expected
    assert keep.keeps(key) is expected


def test_made_up_keys_do_not_fill_the_memory() -> None:
    """What was decided is remembered for so many keys, then forgotten."""
    keep = Keep(["a"])

    def keys() -> Iterator[str]:
        for number in range(10_000):
            yield f"key-{number}"

    assert not any(map(keep.keeps, keys()))
    assert len(keep._known) <= 4096
