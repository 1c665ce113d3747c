"""Everything the recorder can raise: one tree, whose docstrings are the default messages."""

from __future__ import annotations

from pathlib import Path


class RecorderError(Exception):
    """The recorder could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class StorageError(RecorderError):
    """The recordings folder cannot be written: free some space or choose another folder, then try again."""


class Overloaded(RecorderError):
    """The recorder has as much to do as it can: send the request again later."""


class ReceiverError(RecorderError):
    """The receiver cannot start: choose another address."""


class InvalidRecordingId(RecorderError):
    """A recording id is 1 to 64 characters out of A-Z a-z 0-9 _ and -."""


class RecordingExists(RecorderError):
    """A recording with this id exists already: choose another id."""


class RecordingNotFound(RecorderError):
    """There is no such recording."""


class RecordingUnsealed(RecorderError):
    """The recording is not sealed yet: stop its processes, then seal it."""

    def __init__(self, message: str | None = None, directory: Path | None = None) -> None:
        super().__init__(message)
        self.directory = directory


class RecordingDamaged(RecorderError):
    """The recording's bytes are not those that were sealed: restore it from a copy."""


class ImportFailed(RecorderError):
    """The files hold no OTLP traces."""


class CommandNotStarted(RecorderError):
    """The command could not be started. `code` is what shells and wrappers answer then: 127 not found, 126 not
    executable."""

    def __init__(self, message: str | None = None, *, code: int = 126) -> None:
        super().__init__(message)
        self.code = code


class ExportFailed(RecorderError):
    """The recording cannot be exported there: choose another file."""


class ExportExists(ExportFailed):
    """There is such a file already: choose another name, or have it overwritten."""


def printable(text: object, limit: int = 200) -> str:
    """Untrusted text made safe for a one-line message: no control characters, at most `limit` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)[:limit])
    return shown if len(str(text)) <= limit else shown + "…"
