"""A log is there with its header, or not at all: a process killed while it begins one leaves no doubt behind."""

from __future__ import annotations

import errno
import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any, Never

import pytest

from fencepost_recorder import begin, seal, segment
from fencepost_recorder.errors import StorageError
from fencepost_recorder.logs import list_logs
from fencepost_recorder.wal import FrameType
from fencepost_recorder.writer import LogWriter


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return begin(tmp_path, "appearing")


def killed_at_call(number: int, wal: Path) -> bool:
    """Whether a process that begins a log was killed: it is, at that call of a function written in C."""
    child = os.fork()
    if child == 0:
        calls = count(1)

        def kill(_: Any, event: str, __: Any) -> None:
            if event == "c_call" and next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(kill)
        LogWriter(wal)
        sys.setprofile(None)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_process_killed_at_any_call_while_it_begins_a_log_leaves_a_whole_one_or_none(directory: Path) -> None:
    kills = next(number for number in count() if not killed_at_call(number + 1, directory / "wal"))
    logs = list_logs(directory / "wal")
    assert all(log.header is not None and log.header.locked for log in logs)
    # The one that was not killed, and those that were after the log had appeared.
    assert 1 < len(logs) < kills / 2
    assert seal(directory, tool_version="test").gaps().num_rows == 0


def no_link(*_: Any, **__: Any) -> Never:
    raise PermissionError(errno.EACCES, "no right to /proc", "/proc/self/fd/512", None, "the log")


@pytest.mark.parametrize("lacking", ["files without a name", "the right to link them", "the very constant"])
def test_where_no_file_can_appear_whole_the_log_is_begun_by_name(
    directory: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    if lacking == "the right to link them":
        monkeypatch.setattr(os, "link", no_link)
    else:
        # Flags that no open(2) takes together.
        flags = None if lacking == "the very constant" else os.O_DIRECTORY | os.O_CREAT
        monkeypatch.setattr(segment, "_UNNAMED", flags)
    made = LogWriter(directory / "wal", producer="p")
    assert [(log.producer, log.locked_now) for log in list_logs(directory / "wal")] == [("p", True)]
    assert made.append(FrameType.RESOURCE, b"") == 0
    made.close()
    recording = seal(directory, tool_version="test")
    assert (recording.gaps().num_rows, [one.ended for one in recording.manifest.producers]) == (0, ["closed"])


def test_a_log_does_not_take_the_place_of_another(directory: Path) -> None:
    other = directory / "wal" / "p.wal"
    other.write_bytes(b"another's")
    with pytest.raises(StorageError, match=r"cannot write the log .*p\.wal: File exists"):
        LogWriter(directory / "wal", producer="p")
    assert other.read_bytes() == b"another's"
