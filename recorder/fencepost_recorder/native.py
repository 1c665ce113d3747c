"""Bytes of a file in memory of Arrow's own.

Arrow reads with threads, which may hold such bytes a moment longer than whoever asked. Those of a Python object they
can let go of only with Python's help: in a process that is about to end, that aborts it or hangs it for good.
"""

from __future__ import annotations

import os
from io import BufferedReader

import pyarrow as pa


def native(stream: BufferedReader) -> pa.Buffer:
    """All bytes of a plain file that was just opened; fewer if it is cut meanwhile. Raises OSError."""
    data = pa.allocate_buffer(os.fstat(stream.fileno()).st_size)
    return data.slice(0, stream.readinto(data))
