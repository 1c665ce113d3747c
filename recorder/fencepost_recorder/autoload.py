"""What `opentelemetry-instrument` loads by our entry points: recording with the program's own code unchanged.

`opentelemetry_pre_instrument` and `opentelemetry_post_instrument` both come here. The first runs before any library is
instrumented, so that a broken instrumentation cannot keep us away; the second catches what only came to be
afterwards. Where FENCEPOST_WAL is not set both are over at once, and nothing of ours is loaded.

Whatever goes wrong is one line on stderr, and the program runs on without being recorded. This module therefore
imports nothing that could fail, the SDK least of all.
"""

from __future__ import annotations

import os
import sys

from fencepost_recorder.errors import RecorderError

WAL_VARIABLE = "FENCEPOST_WAL"
# Says to the Python programs that this one starts that the line was printed already.
_TOLD_VARIABLE = "FENCEPOST_TOLD"


def pre_instrument() -> None:
    """Record this process into $FENCEPOST_WAL, if that is set. Never raises."""
    _attach()


def post_instrument() -> None:
    """The same again, for providers that were set while libraries were instrumented. Never raises."""
    _attach()


def complain(sentence: str) -> None:
    """One line on stderr: once for this process and all that it starts."""
    if os.environ.get(_TOLD_VARIABLE):
        return
    os.environ[_TOLD_VARIABLE] = "1"
    try:
        sys.stderr.write(f"fencepost: {' '.join(sentence.split())}\n")
        sys.stderr.flush()
    except Exception:  # a program without stderr: the recording says it, where there is one
        return


def _attach() -> None:
    wal = os.environ.get(WAL_VARIABLE, "")
    if not wal:
        return
    try:
        from fencepost_recorder.attaching import attach

        problem = attach(wal)
    except RecorderError as error:
        problem = str(error)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        complain(f"this program goes on unrecorded: {problem}")
