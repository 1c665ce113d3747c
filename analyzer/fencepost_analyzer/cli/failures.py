"""What goes wrong, as one sentence on stderr and an exit code; never a traceback.

FENCEPOST_DEBUG=1 lets a traceback through, for reports of what should not have happened.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from fencepost_analyzer import render

USAGE = 2
BROKEN_PIPE = 141

# The base of every error that the command line's parser raises, whichever parser this Typer is built on.
_ParserError: type[Exception] = typer.BadParameter.__mro__[2]

_OS_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space, or choose another folder",
    errno.EDQUOT: "the disk quota is used up: free some space, or choose another folder",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "permission denied: change the permissions, or choose another place",
    errno.EPERM: "permission denied: change the permissions, or choose another place",
    errno.ENOENT: "there is no such file: check the spelling",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another place",
    errno.EEXIST: "there is something of this name already: choose another place",
    errno.EISDIR: "this is a folder: name a file",
    errno.EFBIG: "the file would grow too large: raise the limit (ulimit -f), or choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
}


class UsageError(Exception):
    """The command line asks for something that cannot be done; the message says what to write instead."""


def guarded(command: Callable[[], int]) -> int:
    """Runs a command; answers its exit code, or that of the failure it has told the user about."""
    _make_streams_robust()
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        render.abandon(sys.stdout)  # the reader is gone
        return BROKEN_PIPE
    except Exception as error:
        if _is_interruption(error):
            raise KeyboardInterrupt from error
        if os.environ.get("FENCEPOST_DEBUG") == "1":
            raise
        render.complain(explain(error))
        return USAGE
    return code


def explain(error: BaseException) -> str:
    """The failure in one sentence, with the way out."""
    if isinstance(error, _ParserError):
        return _explain_parsing(error)
    if isinstance(error, UsageError):
        return str(error)
    if _is_ours(error):
        return _explain_ours(error)
    if isinstance(error, OSError):
        return _explain_os(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory for this: try a smaller recording, or a larger machine"
    return (
        f"this should not have happened ({type(error).__name__}: {error}); "
        "FENCEPOST_DEBUG=1 shows where, please report it"
    )


def _is_interruption(error: BaseException) -> bool:
    """Whether this is Ctrl-C while DuckDB was at work: it takes the signal, and raises an error of its own. Nothing of
    ours interrupts a query in this process."""
    return "duckdb" in sys.modules and (
        isinstance(error, sys.modules["duckdb"].InterruptException)
        or (isinstance(error, RuntimeError) and str(error) == "Query interrupted")
    )


def _is_ours(error: BaseException) -> bool:
    """Whether the error is of one of the three trees. They are imported only now: start-up must not pay for them."""
    from fencepost_analyzer.errors import AnalyzerError
    from fencepost_recorder.errors import RecorderError
    from fencepost_runtime.errors import RuntimeFault

    return isinstance(error, AnalyzerError | RecorderError | RuntimeFault)


def _explain_ours(error: BaseException) -> str:
    from fencepost_analyzer.errors import QueryError
    from fencepost_recorder.errors import ExportExists, RecordingUnsealed

    if isinstance(error, ExportExists):
        return f"{error}; here that is --force"
    if isinstance(error, RecordingUnsealed):
        return f"{error}: `fencepost seal {shlex.quote(str(error.directory or 'RUN'))}`"
    if isinstance(error, QueryError) and str(error).startswith("Table with name"):
        return f"{error}; there are spans, gaps, events and what `SHOW TABLES` lists"
    return str(error)


def _explain_parsing(error: Exception) -> str:
    message = str(getattr(error, "format_message", lambda: error)())
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "fencepost"
    return f"{message.rstrip('.')}; see `{path} --help`" if "Did you mean" not in message else message


def _explain_os(error: OSError) -> str:
    reason = _OS_ERRORS.get(error.errno or 0) or (error.strerror or type(error).__name__).lower()
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if error.errno == errno.ENOENT and names and not (folder := Path(names[0]).parent).exists():
        reason = f"there is no folder {folder}: check the spelling, or make it first"
    return f"{' and '.join(names)}: {reason}" if names else reason


def _make_streams_robust() -> None:
    """What the terminal's encoding lacks is escaped, and a stream that the shell closed (`>&-`) takes anything."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # It takes the closed one's number, so that no file of ours does.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        reconfigure = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
