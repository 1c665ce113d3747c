"""Postmortems: a recording's evidence in a folder, a page for people beside it, and whether it all still stands."""

from __future__ import annotations

from fencepost_analyzer.postmortem.evidence import specification, usual
from fencepost_analyzer.postmortem.folder import PostmortemError
from fencepost_analyzer.postmortem.standing import Check, blanks, verify, written_by
from fencepost_analyzer.postmortem.writing import attach_file, attach_query, attach_recording, new, renew

__all__ = [
    "Check",
    "PostmortemError",
    "attach_file",
    "attach_query",
    "attach_recording",
    "blanks",
    "new",
    "renew",
    "specification",
    "usual",
    "verify",
    "written_by",
]
