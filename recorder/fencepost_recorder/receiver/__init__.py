"""The OTLP receiver: acknowledged means on disk."""

from __future__ import annotations

from fencepost_recorder.receiver.limits import Counts, Limits, Tls
from fencepost_recorder.receiver.service import Receiver

__all__ = ["Counts", "Limits", "Receiver", "Tls"]
