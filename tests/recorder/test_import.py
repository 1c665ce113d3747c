"""Files of OTLP traces become recordings, whatever way they were written, and what cannot be read is said."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf.internal.encoder import _VarintBytes
from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanKind, StatusCode

from fencepost_recorder import (
    ImportFailed,
    InvalidRecordingId,
    Recording,
    RecordingExists,
    StorageError,
    import_otlp,
    list_recordings,
    schema,
)
from fencepost_recorder.source import Limits

VERSION = "0.0.test"
Spans = list[ReadableSpan]


@pytest.fixture
def spans() -> Spans:
    """Six spans of two services, with everything a span can have."""
    memory = InMemorySpanExporter()
    for service in ("a", "b"):
        resource = Resource({"service.name": service, "service.instance.id": f"{service}-1", "process.pid": 4})
        provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(memory))
        tracer = provider.get_tracer("scope", "1", attributes={"s": 1})
        with tracer.start_as_current_span("outer", attributes={"b": b"\x00\xff", "i": -5, "l": [1.5, "x"]}) as outer:
            outer.add_event("happened", {"n": 1})
            link = Link(outer.get_span_context(), {"why": "test"})
            inner = tracer.start_span("inner", kind=SpanKind.CONSUMER, links=[link], attributes={"ok": True})
            inner.set_status(StatusCode.ERROR, "broke")
            inner.end()
        tracer.start_span("last").end()
    return list(memory.get_finished_spans())


def traces(spans: Spans) -> list[bytes]:
    """One protobuf message for each service."""
    return [encode_spans(spans[:3]).SerializeToString(), encode_spans(spans[3:]).SerializeToString()]


def json_lines(spans: Spans, folder: Path) -> bytes:
    path = folder / "sdk.jsonl"
    exporter = FileSpanExporter(path)
    exporter.export(spans[:3])
    exporter.export(spans[3:])
    exporter.shutdown()
    return path.read_bytes()


def merged(spans: Spans, folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in json_lines(spans, folder).splitlines()]
    return {"resourceSpans": [one for line in lines for one in line["resourceSpans"]]}


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def changed(document: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    """The document with every span and link changed in place."""
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                change(span)
    return document


def base64_ids(span: dict[str, Any]) -> None:
    for one in (span, *span.get("links", ())):
        for key in ("traceId", "spanId", "parentSpanId"):
            if one.get(key):
                one[key] = base64.b64encode(bytes.fromhex(one[key])).decode()


def upper_and_numbers(span: dict[str, Any]) -> None:
    for key in ("traceId", "spanId"):
        span[key] = span[key].upper()
    for key in ("startTimeUnixNano", "endTimeUnixNano"):
        span[key] = int(span[key])
    span["kind"] = "SPAN_KIND_CONSUMER" if span["kind"] == 5 else span["kind"]


def snake(value: Any) -> Any:
    if isinstance(value, list):
        return [snake(one) for one in value]
    if isinstance(value, dict):
        return {"".join("_" + c.lower() if c.isupper() else c for c in key): snake(one) for key, one in value.items()}
    return value


def be32(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


FORMATS: dict[str, Callable[[Spans, Path], bytes]] = {
    "json lines": json_lines,
    "json lines with crlf and blank lines": lambda s, f: b"\r\n" + json_lines(s, f).replace(b"\n", b"\r\n\r\n"),
    "json lines with a byte order mark": lambda s, f: b"\xef\xbb\xbf" + json_lines(s, f),
    "json lines, gzipped": lambda s, f: gzip.compress(json_lines(s, f)),
    "json lines, gzipped in two members": lambda s, f: b"".join(
        gzip.compress(line + b"\n") for line in json_lines(s, f).splitlines()
    ),
    "one json document": lambda s, f: json.dumps(merged(s, f)).encode(),
    "one pretty json document": lambda s, f: json.dumps(merged(s, f), indent=2).encode(),
    "an array of documents": lambda s, f: json.dumps([merged(s, f)]).encode(),
    "base64 ids": lambda s, f: json.dumps(changed(merged(s, f), base64_ids)).encode(),
    "upper-case ids, numbers, names": lambda s, f: json.dumps(changed(merged(s, f), upper_and_numbers)).encode(),
    "proto field names": lambda s, f: json.dumps(snake(merged(s, f))).encode(),
    "an answer of Jaeger's": lambda s, f: json.dumps({"result": merged(s, f)}).encode(),
    "an answer of Tempo's": lambda s, f: json.dumps({"trace": changed(merged(s, f), base64_ids)}).encode(),
    "an older answer of Tempo's": lambda s, f: json.dumps({"batches": merged(s, f)["resourceSpans"]}).encode(),
    "varint lengths": lambda s, _: b"".join(_VarintBytes(len(one)) + one for one in traces(s)),
    "varint lengths, gzipped": lambda s, _: gzip.compress(b"".join(_VarintBytes(len(one)) + one for one in traces(s))),
    "4-byte lengths": lambda s, _: b"".join(be32(one) for one in traces(s)),
    "4-byte lengths, zstd": lambda s, _: b"".join(be32(zstd(one)) for one in traces(s)),
    "4-byte lengths, zstd, json": lambda s, f: b"".join(be32(zstd(one)) for one in json_lines(s, f).splitlines()),
    "one message": lambda s, _: b"".join(traces(s)),
}


def load(recordings: Path, *contents: bytes, **options: Any) -> Recording:
    recordings.parent.mkdir(exist_ok=True)
    files = []
    for number, content in enumerate(contents):
        # The name says nothing about the format.
        path = recordings.parent / f"input-{number}"
        path.write_bytes(content)
        files.append(path)
    return import_otlp(files, recordings, "imported", tool_version=VERSION, **options)


def table(recording: Recording) -> list[dict[str, Any]]:
    rows = recording.spans().to_pylist()
    for row in rows:
        row.pop("received_time_unix_nano")
    return rows


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_recording(name: str, spans: Spans, recordings: Path, tmp_path: Path) -> None:
    recording = load(recordings, FORMATS[name](spans, tmp_path))
    reference = load(tmp_path / "reference" / "r", FORMATS["one message"](spans, tmp_path))
    assert table(recording) == table(reference)
    assert recording.spans().schema.equals(schema.SPANS)
    assert recording.manifest.spans == 6
    assert recording.manifest.imported is not None
    assert recording.manifest.imported["spans"] == 6
    assert [path.name for path in recordings.iterdir()] == ["imported"]


def test_an_imported_span_is_the_row_that_was_exported(spans: Spans, recordings: Path, tmp_path: Path) -> None:
    inner = next(row for row in table(load(recordings, json_lines(spans, tmp_path))) if row["name"] == "inner")
    source = spans[0]
    assert source.context is not None
    assert inner["trace_id"] == format(source.context.trace_id, "032x")
    assert inner["span_id"] == format(source.context.span_id, "016x")
    assert (inner["kind"], inner["status_code"], inner["status_status_message"]) == (5, 2, "broke")
    assert inner["start_time_unix_nano"] == source.start_time
    assert inner["duration_time_unix_nano"] == (source.end_time or 0) - (source.start_time or 0)
    assert json.loads(inner["links_json"])[0]["attributes"] == {"why": "test"}
    outer = next(
        row for row in table(load(tmp_path / "again" / "r", json_lines(spans, tmp_path))) if row["name"] == "outer"
    )
    assert outer["span_attributes"] == '{"b":"AP8=","i":-5,"l":[1.5,"x"]}'
    assert (outer["service_name"], outer["scope_name"], outer["scope_attributes"]) == ("a", "scope", '{"s":1}')
    assert json.loads(outer["events_json"])[0]["name"] == "happened"


def test_every_producer_of_an_import_is_unsequenced(spans: Spans, recordings: Path, tmp_path: Path) -> None:
    recording = load(recordings, json_lines(spans, tmp_path))
    gaps = recording.gaps().to_pylist()
    assert [(gap["producer"], gap["cause"], gap["lost"]) for gap in gaps] == [
        ("a-1", "unsequenced", None),
        ("b-1", "unsequenced", None),
    ]
    rows = table(recording)
    assert [row["producer"] for row in rows] == ["a-1"] * 3 + ["b-1"] * 3
    assert [row["producer_seq"] for row in rows] == sorted(row["producer_seq"] for row in rows)
    assert all(row["producer_seq"] == row["producer_end_seq"] for row in rows)


def test_a_producer_without_an_instance_is_named_by_service_host_and_pid(recordings: Path) -> None:
    def line(attributes: dict[str, str], number: int) -> bytes:
        pairs = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
        return json.dumps(minimal(number, resource={"attributes": pairs})).encode() + b"\n"

    content = line({"service.name": "s", "host.name": "h", "process.pid": "4"}, 1) + line({}, 2)
    assert {row["producer"] for row in table(load(recordings, content))} == {"s/h/4", "unknown"}


def minimal(number: int = 1, resource: Any = None, **fields: Any) -> dict[str, Any]:
    span = {"traceId": f"{1:032x}", "spanId": f"{number:016x}", "name": f"n{number}", "startTimeUnixNano": "5"}
    span |= {"endTimeUnixNano": "9", **fields}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}


POISONS: dict[str, Any] = {
    "a trace id that is none": {"traceId": "xyz"},
    "an empty span id": {"spanId": ""},
    "a span id of zeros": {"spanId": "0" * 16},
    "a time beyond 63 bits": {"startTimeUnixNano": str(2**64 - 1)},
    "a time of 5,000 digits": {"startTimeUnixNano": "9" * 5000},
    "a time that is no number": {"endTimeUnixNano": "noon"},
    "a negative time": {"endTimeUnixNano": -1},
    "events that are no array": {"events": 7},
    "a kind that is none": {"kind": "SPAN_KIND_OTHER"},
    "a parent that is none": {"parentSpanId": "q"},
}


@pytest.mark.parametrize("name", POISONS)
def test_a_poison_span_is_left_out_and_counted_and_the_rest_kept(recordings: Path, name: str) -> None:
    instance = {"attributes": [{"key": "service.instance.id", "value": {"stringValue": "p"}}]}
    document = minimal(1, instance, **POISONS[name])
    document["resourceSpans"][0]["scopeSpans"][0]["spans"].append(
        minimal(2)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    )
    recording = load(recordings, json.dumps(document).encode())
    assert [row["name"] for row in table(recording)] == ["n2"]
    [gap] = [gap for gap in recording.gaps().to_pylist() if gap["cause"] == "poison_span"]
    assert (gap["producer"], gap["lost"]) == ("p", 1)
    assert gap["since_unix_nano"] in (5, None)
    assert recording.manifest.imported is not None
    assert recording.manifest.imported["poison"] == 1


def test_a_poison_span_in_protobuf_is_left_out_and_the_rest_kept(spans: Spans, recordings: Path) -> None:
    data = TracesData.FromString(b"".join(traces(spans)))
    broken = data.resource_spans[0].scope_spans[0].spans
    broken[0].trace_id = b"short"
    broken[1].name = "MARK"
    # Text that is no UTF-8 makes protobuf refuse the whole message it is in.
    content = data.SerializeToString().replace(b"MARK", b"\xff\xfe\xfd\xfc")
    recording = load(recordings, content)
    assert recording.manifest.spans == 4
    causes = [gap["cause"] for gap in recording.gaps().to_pylist()]
    assert causes.count("poison_span") == 2


def test_hostile_attributes_do_not_sink_a_span(recordings: Path) -> None:
    def attribute(key: Any, value: Any) -> dict[str, Any]:
        return {"key": key, "value": value}

    deep: Any = {"stringValue": "x"}
    for _ in range(50):
        deep = {"arrayValue": {"values": [deep]}}
    attributes = [
        attribute("big", {"intValue": str(2**64 - 1)}),
        attribute("surrogate", {"stringValue": "\ud800"}),
        attribute("nan", {"doubleValue": "NaN"}),
        attribute("empty", {}),
        attribute("null", None),
        attribute("list", {"arrayValue": {"values": [{"intValue": "1"}, {"boolValue": True}]}}),
        attribute("map", {"kvlistValue": {"values": [attribute("k", {"stringValue": "v"})]}}),
        attribute("deep", deep),
        attribute("wrong", {"boolValue": "yes"}),
        attribute("bytes", {"bytesValue": "%%%"}),
        attribute(7, {"stringValue": "x"}),
        "no object",
    ]
    [row] = table(load(recordings, json.dumps(minimal(1, attributes=attributes)).encode()))
    assert json.loads(row["span_attributes"]) == {
        "big": str(2**64 - 1),
        "surrogate": "\\ud800",
        "nan": "NaN",
        "empty": None,
        "null": None,
        "list": [1, True],
        "map": {"k": "v"},
    }
    assert row["dropped_attributes_count"] == 5


def test_a_span_that_comes_twice_is_kept_once_even_across_formats(
    spans: Spans, recordings: Path, tmp_path: Path
) -> None:
    recording = load(recordings, json_lines(spans, tmp_path), b"".join(traces(spans)))
    assert (recording.manifest.spans, recording.manifest.duplicates) == (6, 6)
    assert {gap["cause"] for gap in recording.gaps().to_pylist()} == {"unsequenced"}


def test_a_span_without_an_end_has_not_ended(recordings: Path) -> None:
    [row] = table(load(recordings, json.dumps(minimal(1, endTimeUnixNano="0")).encode()))
    assert (row["duration_time_unix_nano"], row["producer_end_seq"]) == (None, None)


@pytest.mark.parametrize("cut", [1, 40, 200])
@pytest.mark.parametrize("name", ["json lines", "varint lengths", "4-byte lengths", "one message"])
def test_a_cut_file_keeps_what_came_before_and_says_so(
    spans: Spans, recordings: Path, tmp_path: Path, name: str, cut: int
) -> None:
    recording = load(recordings, FORMATS[name](spans, tmp_path).rstrip(b"\n")[:-cut])
    assert recording.manifest.spans == 3
    [gap] = [gap for gap in recording.gaps().to_pylist() if gap["cause"] == "torn_tail"]
    assert gap["lost"] is None
    assert "the end of" in gap["detail"]
    assert recording.manifest.imported is not None
    assert recording.manifest.imported["files"][0]["torn"]


def test_a_cut_or_damaged_gzip_keeps_what_came_before(spans: Spans, recordings: Path, tmp_path: Path) -> None:
    lines = json_lines(spans, tmp_path)
    noise = random.Random(1).randbytes(60_000).hex().encode()
    data = gzip.compress(lines + b'{"x": "' + noise + b'"}\n')
    for number, content in enumerate((data[:-3000], data[:-3000] + bytes(2000), data[:-4] + b"\0\0\0\0")):
        recording = load(tmp_path / str(number) / "r", content)
        assert recording.manifest.spans == 6
        assert "torn_tail" in recording.gaps()["cause"].to_pylist()
    assert not recordings.exists()


def test_a_damaged_line_in_the_middle_is_a_gap_of_unknown_size(spans: Spans, tmp_path: Path) -> None:
    first, second = json_lines(spans, tmp_path).splitlines()
    for number, lines in enumerate(([first, second[:-30], b"[1]", first], [second[:-30], first])):
        recording = load(tmp_path / str(number) / "r", b"\n".join(lines))
        assert recording.manifest.spans == 3
        gaps = [gap for gap in recording.gaps().to_pylist() if gap["cause"] == "poison_span"]
        assert gaps
        assert all(gap["lost"] is None and "line" in gap["detail"] for gap in gaps)


def test_logs_and_metrics_in_a_file_are_skipped_and_counted(spans: Spans, recordings: Path, tmp_path: Path) -> None:
    others = b'{"resourceLogs":[]}\n{"resourceMetrics":[{}]}\n{"resourceLogs":[{}]}\n{}\n'
    recording = load(recordings, others + json_lines(spans, tmp_path))
    assert recording.manifest.spans == 6
    assert recording.manifest.imported is not None
    assert recording.manifest.imported["skipped"] == {"logs": 2, "metrics": 1}


def console(spans: Spans) -> bytes:
    out = io.StringIO()
    ConsoleSpanExporter(out=out).export([spans[0], spans[2]])
    return out.getvalue().encode()


REFUSED: dict[str, tuple[Callable[[Spans], bytes], str]] = {
    "nothing": (lambda _: b"", "is empty"),
    "blank lines": (lambda _: b"\n\n", "is empty"),
    "text": (lambda _: b"hello\n", "is text, but not JSON"),
    "noise": (lambda _: bytes(range(256)) * 4, "neither JSON nor protobuf"),
    "zeros": (lambda _: bytes(1000), "neither JSON nor protobuf"),
    "console output": (console, "the output of ConsoleSpanExporter, which is not OTLP"),
    "a console line": (lambda s: json.dumps(json.loads(s[0].to_json())).encode(), "the output of ConsoleSpanExporter"),
    "a trace to look at": (lambda _: b'{"otherData":{},"traceEvents":[\n{"ph":"M"}\n]}', "which is not OTLP"),
    "Jaeger's own": (lambda _: b'{"data":[{"traceID":"1","spans":[]}]}', "Jaeger's own JSON, which is not OTLP"),
    "only logs": (lambda _: b'{"resourceLogs":[{}]}\n', "not a single span, only logs"),
    "no spans": (lambda _: b'{"resourceSpans":[]}\n', "not a single span in it"),
    "other json": (lambda _: b'{"a": 1}\n{"b": 2}\n', "not a single span could be read"),
    "a cut document": (lambda _: b'{\n "resourceSpans": [\n', "damaged"),
    "deep json": (lambda _: b'{"resourceSpans":' + b"[" * 200_000, "nested too deeply|not a single span"),
    "a deep line": (lambda _: b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n", "not a single span|too deeply"),
    "all of it zstd": (lambda _: zstd(b"{}"), "decompress it first"),
    "all of it xz": (lambda _: lzma.compress(b"{}"), r"xz: decompress it first \(xz -d\)"),
    "all of it bzip2": (lambda _: bz2.compress(b"{}"), r"decompress it first \(bzip2 -d\)"),
    "an empty gzip": (lambda _: gzip.compress(b""), "is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_without_a_single_span_is_refused_in_a_sentence_and_nothing_is_written(
    spans: Spans, recordings: Path, name: str
) -> None:
    make, sentence = REFUSED[name]
    with pytest.raises(ImportFailed, match=sentence) as caught:
        load(recordings, make(spans))
    assert str(caught.value).isprintable()
    assert not recordings.exists() or list(recordings.iterdir()) == []


def test_an_empty_file_is_no_error_unless_all_are(spans: Spans, recordings: Path, tmp_path: Path) -> None:
    json_lines(spans, tmp_path)
    (empty := tmp_path / "empty.jsonl").touch()
    imported = import_otlp([empty, tmp_path / "sdk.jsonl"], recordings, tool_version="1").manifest.imported or {}
    assert [(one["format"], one["spans"] > 0) for one in imported["files"]] == [("empty", False), ("JSON lines", True)]
    with pytest.raises(ImportFailed, match="are empty"):
        import_otlp([empty, empty], recordings, tool_version="1")


LIMITS = Limits(file_bytes=4 * 1024**2, message_bytes=256 * 1024, document_bytes=1024**2)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (gzip.compress(b" " * 64 * 1024**2), "a line of more than|more than 4096 blanks"),
        (gzip.compress((b" " * 1000 + b"\n") * 10_000), "more than 4 MiB once decompressed|more than 4096 blanks"),
        (gzip.compress(b'{"resourceSpans":[]}\n' * 400_000), "more than 4 MiB once decompressed"),
        (b'{"resourceSpans":\n[' + b"{},\n" * 400_000 + b"{}]}", "one JSON document of more than 1 MiB"),
        (b'{"a":"' + b"x" * 1024**2 + b'"}', "a line of more than"),
    ],
)
def test_bombs_are_refused_before_they_fill_the_memory(recordings: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(ImportFailed, match=sentence):
        load(recordings, content, limits=LIMITS)
    assert list_recordings(recordings) == []


def test_a_message_with_an_impossible_length_ends_the_file(spans: Spans, recordings: Path) -> None:
    recording = load(recordings, be32(traces(spans)[0]) + b"\x7f\xff\xff\xff" + traces(spans)[1])
    assert recording.manifest.spans == 3
    assert "impossible size" in recording.gaps().to_pylist()[0]["detail"]


def test_noise_after_any_beginning_never_raises_anything_but_a_sentence(spans: Spans, tmp_path: Path) -> None:
    source = random.Random(5)
    samples = [FORMATS[name](spans, tmp_path) for name in ("json lines", "varint lengths", "4-byte lengths")]
    for number in range(60):
        data = bytearray(source.choice(samples))
        for _ in range(source.randrange(1, 6)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            recording = load(tmp_path / f"fuzz-{number}" / "r", bytes(data))
        except ImportFailed as error:
            assert str(error).isprintable()
        else:
            assert 0 < recording.manifest.spans <= 6


def test_hostile_names_stay_text(spans: Spans, recordings: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil\x1b[31m\n'; DROP TABLE spans; --.json"
    path.write_bytes(json_lines(spans, tmp_path)[:-50])
    recording = import_otlp([path], recordings, "hostile", tool_version=VERSION)
    texts = [gap["detail"] for gap in recording.gaps().to_pylist()]
    assert all(text.isprintable() for text in texts)
    assert recording.manifest.imported is not None
    assert recording.manifest.imported["files"][0]["name"].isprintable()


def test_what_is_no_file_is_refused(recordings: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, sentence in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "no file"),
        (tmp_path / "pipe", "no file"),
    ):
        with pytest.raises(ImportFailed, match=sentence):
            import_otlp([path], recordings, tool_version=VERSION)
    with pytest.raises(ImportFailed, match="name at least one file"):
        import_otlp([], recordings, tool_version=VERSION)


def test_ids_are_checked_before_anything_is_read(recordings: Path, spans: Spans, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(json_lines(spans, tmp_path))
    with pytest.raises(InvalidRecordingId):
        import_otlp([path], recordings, "../x", tool_version=VERSION)
    import_otlp([path], recordings, "x", tool_version=VERSION)
    with pytest.raises(RecordingExists):
        import_otlp([path], recordings, "x", tool_version=VERSION)
    assert len(import_otlp([path], recordings, tool_version=VERSION).id) <= 64


def test_a_full_disk_during_an_import_leaves_no_recording(
    recordings: Path, spans: Spans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json_lines(spans, tmp_path)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    for target in ("fencepost_recorder.writer._write", "fencepost_recorder.durable.write"):
        with monkeypatch.context() as patch, pytest.raises(StorageError, match="free some space"):
            patch.setattr(target, full)
            load(recordings, content)
        assert list(recordings.iterdir()) == []
    assert load(recordings, content).manifest.spans == 6
