"""The columns of a recording's two tables, in their order.

`spans` takes its names and types from the DuckDB `otlp` extension's `read_otlp_traces`, but for
`start_time_unix_nano`, which is a plain integer here: unix nanoseconds survive every client that way.

- ids are lower-case hex; `kind` is 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer;
  `status_code` is 0 unset, 1 ok, 2 error (the numbers of OTLP).
- `duration_time_unix_nano` is null for a span that started and never ended.
- `parent_span_id`, `trace_state`, `service_*`, `scope_name`, `scope_version` and `status_status_message` are null
  where the span has none; the JSON columns never are.
- `resource_attributes`, `scope_attributes`, `span_attributes`: one JSON object, key to value. Text, booleans, null,
  arrays and objects as JSON; 64-bit integers as JSON numbers, exact; finite doubles as JSON numbers with a point or
  exponent; NaN and infinities as the text "NaN", "Infinity", "-Infinity"; bytes as base64 text.
- `events_json`: an array of objects with time_unix_nano, name, attributes, dropped_attributes_count.
- `links_json`: an array of objects with trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags.
- `producer` is the process that started the span; `producer_seq` the sequence of its frame of that start (null: it
  is missing, only the end was recorded); `producer_end_seq` the one of the end (null: never ended, or ended by
  another process, as after a fork). For an import: the place in the file, twice the same.
- `received_time_unix_nano` is when the last frame of the span was written.

`gaps` tells what is known to be missing; bounds are closed, null means unbounded or unknown.
"""

from __future__ import annotations

import pyarrow as pa

SPANS: pa.Schema = pa.schema(
    [
        ("start_time_unix_nano", pa.int64()),
        ("duration_time_unix_nano", pa.int64()),
        ("trace_id", pa.string()),
        ("span_id", pa.string()),
        ("parent_span_id", pa.string()),
        ("trace_state", pa.string()),
        ("service_name", pa.string()),
        ("service_namespace", pa.string()),
        ("service_instance_id", pa.string()),
        ("name", pa.string()),
        ("kind", pa.int32()),
        ("status_code", pa.int32()),
        ("status_status_message", pa.string()),
        ("resource_attributes", pa.string()),
        ("scope_name", pa.string()),
        ("scope_version", pa.string()),
        ("scope_attributes", pa.string()),
        ("span_attributes", pa.string()),
        ("events_json", pa.string()),
        ("links_json", pa.string()),
        ("dropped_attributes_count", pa.int32()),
        ("dropped_events_count", pa.int32()),
        ("dropped_links_count", pa.int32()),
        ("flags", pa.int32()),
        ("producer", pa.string()),
        ("producer_seq", pa.int64()),
        ("producer_end_seq", pa.int64()),
        ("received_time_unix_nano", pa.int64()),
    ]
)

GAPS: pa.Schema = pa.schema(
    [
        ("producer", pa.string()),
        ("first_seq", pa.int64()),
        ("last_seq", pa.int64()),
        ("since_unix_nano", pa.int64()),
        ("until_unix_nano", pa.int64()),
        ("cause", pa.string()),
        ("lost", pa.int64()),
        ("detail", pa.string()),
    ]
)
