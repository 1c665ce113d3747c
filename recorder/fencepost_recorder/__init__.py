"""fencepost's recorder: spans in, sealed recordings out. It knows nothing of jobs.

A process records with `install` (or a RecordingSpanProcessor of its own) into the `wal` folder that `begin` made;
`seal` turns that log into a recording; `open_recording` checks every byte of it before anybody believes it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fencepost_recorder.errors import (
    ExportExists,
    ExportFailed,
    ImportFailed,
    InvalidRecordingId,
    ReceiverError,
    RecorderError,
    RecordingDamaged,
    RecordingExists,
    RecordingNotFound,
    RecordingUnsealed,
    StorageError,
)

if TYPE_CHECKING:
    from fencepost_recorder.exporting import EXPORT_FORMATS, Exported, export_recording
    from fencepost_recorder.folder import RecordingSummary, begin, list_recordings, resolve
    from fencepost_recorder.importing import import_otlp
    from fencepost_recorder.installing import install
    from fencepost_recorder.manifest import FileEntry, Manifest, Producer
    from fencepost_recorder.processor import RecordingSpanProcessor
    from fencepost_recorder.receiver.service import Receiver
    from fencepost_recorder.recording import Recording, open_recording
    from fencepost_recorder.sealing import recover, seal
    from fencepost_recorder.staging import stage

__all__ = [
    "EXPORT_FORMATS",
    "ExportExists",
    "ExportFailed",
    "Exported",
    "FileEntry",
    "ImportFailed",
    "InvalidRecordingId",
    "Manifest",
    "Producer",
    "Receiver",
    "ReceiverError",
    "RecorderError",
    "Recording",
    "RecordingDamaged",
    "RecordingExists",
    "RecordingNotFound",
    "RecordingSpanProcessor",
    "RecordingSummary",
    "RecordingUnsealed",
    "StorageError",
    "begin",
    "export_recording",
    "import_otlp",
    "install",
    "list_recordings",
    "open_recording",
    "recover",
    "resolve",
    "seal",
    "stage",
]

# Where the rest lives, in modules that bear no public name: importing one would put it in that name's place.
# Loaded when asked for: a process that only records must not pay for Arrow, nor be given the threads that Arrow
# starts, with which it could not fork safely; and one that loads our entry points without recording pays for nothing.
_LATER = {
    "RecordingSummary": "folder",
    "begin": "folder",
    "list_recordings": "folder",
    "resolve": "folder",
    "EXPORT_FORMATS": "exporting",
    "Exported": "exporting",
    "export_recording": "exporting",
    "import_otlp": "importing",
    "install": "installing",
    "FileEntry": "manifest",
    "Manifest": "manifest",
    "Producer": "manifest",
    "RecordingSpanProcessor": "processor",
    "Receiver": "receiver.service",
    "Recording": "recording",
    "open_recording": "recording",
    "recover": "sealing",
    "seal": "sealing",
    "stage": "staging",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
