"""A user's own SQL over a recording, answered by a child process that holds nothing worth stealing.

The child gets the recording's tables through a pipe, loads them into a locked DuckDB and runs one SELECT under
limits of memory and time; this side reads no more of its answer than agreed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pyarrow as pa

from fencepost_analyzer import sandbox
from fencepost_analyzer.check import Recording
from fencepost_analyzer.errors import QueryError

MEMORY_BYTES = 2_000_000_000
MAX_SQL_BYTES = 100_000
MAX_ANSWER_BYTES = 256_000_000

# After the child should have interrupted its own query, the time until it is killed.
_PATIENCE_S = 2.0


def query(
    recording: Recording,
    sql: str,
    *,
    timeout_s: float = 30,
    limit_rows: int = 10_000,
    mappings: Sequence[Path] = (),
    memory_bytes: int = MEMORY_BYTES,
) -> pa.Table:
    """The answer to one SELECT over `spans`, `gaps`, `events` and the views, as an Arrow table.

    At most `limit_rows` rows; when there were more, the schema's metadata has b"fencepost.cut" = b"true" (see
    `is_cut`). The query may take `timeout_s` seconds, and loading the recording two more. Raises QueryError."""
    try:
        size = len(sql.encode())
    except UnicodeEncodeError:
        raise QueryError("The query is not valid UTF-8 text: check the encoding of the file or the terminal.") from None
    if size > MAX_SQL_BYTES:
        raise QueryError(f"The query is longer than {MAX_SQL_BYTES} bytes.")
    request = {
        "sql": sql,
        "timeout_s": timeout_s,
        "limit_rows": limit_rows,
        "memory_bytes": memory_bytes,
        "mappings": [str(path.resolve()) for path in mappings],
    }
    answer = _ask(request, (recording.spans(), recording.gaps()), timeout_s)
    return _table(answer)


def is_cut(table: pa.Table) -> bool:
    """Whether the answer had more rows than were asked for."""
    return (table.schema.metadata or {}).get(sandbox.CUT) == b"true"


def _ask(request: dict[str, object], tables: Sequence[pa.Table], timeout_s: float) -> bytes:
    # -P: nothing is imported from the directory that the user happens to stand in.
    command = [sys.executable, "-P", "-m", "fencepost_analyzer.sandbox"]
    with (
        tempfile.TemporaryDirectory(prefix="fencepost-query-") as empty,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=empty,
            env=_environment(),
        ) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        feeder = threading.Thread(target=_feed, args=(child.stdin, request, tables), daemon=True)
        expired = threading.Event()
        overtime = threading.Timer(timeout_s + _PATIENCE_S, _expire, (expired, child))
        feeder.start()
        overtime.start()
        try:
            answer = child.stdout.read(MAX_ANSWER_BYTES + 1)
        finally:
            overtime.cancel()
            child.kill()
            feeder.join()
        if expired.is_set():
            raise QueryError(sandbox.TOO_LONG.format(timeout_s))
    if len(answer) > MAX_ANSWER_BYTES:
        raise QueryError(f"The answer is larger than {MAX_ANSWER_BYTES // 1_000_000} MB: select fewer columns or rows.")
    return answer


def _expire(expired: threading.Event, child: subprocess.Popen[bytes]) -> None:
    expired.set()  # First, or its silence would be taken for something else.
    child.kill()


def _environment() -> dict[str, str]:
    """Secrets in the environment stay with the parent; only what Python needs to find its packages goes along."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}


def _feed(pipe: IO[bytes], request: dict[str, object], tables: Sequence[pa.Table]) -> None:
    try:
        with pipe:
            pipe.write(json.dumps(request).encode() + b"\n")
            for table in tables:
                with pa.ipc.new_stream(pipe, table.schema) as writer:
                    writer.write_table(table)
    except (OSError, ValueError):
        return  # The child is gone; what it said, or did not say, tells why.


def _table(answer: bytes) -> pa.Table:
    status, _, body = answer.partition(b"\n")
    if status == b"error":
        raise QueryError(body.decode("utf-8", "replace"))
    if status != b"table":
        raise QueryError(sandbox.TOO_LARGE)
    try:
        return pa.ipc.open_stream(body).read_all()
    except pa.ArrowInvalid as error:
        raise QueryError("The query's process ended in the middle of its answer: select fewer rows.") from error
