"""What can go wrong with pages."""

from __future__ import annotations

from fencepost_analyzer.errors import AnalyzerError


class DocsError(AnalyzerError):
    """The documentation cannot be generated."""
