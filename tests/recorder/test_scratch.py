"""What a killed import leaves behind is cleared away by the next one, which never touches what is still in use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fencepost_recorder import StorageError, import_otlp, list_recordings
from fencepost_recorder import scratch as module
from fencepost_recorder.scratch import scratch

LINE = (
    b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00000000000000000000000000000001",'
    b'"spanId":"0000000000000001","startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}\n'
)
# Stops in the middle of its import, says so, and waits.
IMPORT = """
import sys
from pathlib import Path
from fencepost_recorder import import_otlp, importing

def wait(*_, **__):
    print("here", flush=True)
    sys.stdin.read()

importing.seal_as = wait
import_otlp([Path(sys.argv[1])], Path(sys.argv[2]), "slow", tool_version="1")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "one.jsonl"
    path.write_bytes(LINE)
    return path


@contextmanager
def under_way(file: Path, recordings: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process in the middle of an import."""
    command = [sys.executable, "-c", IMPORT, str(file), str(recordings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        yield process
        process.kill()


def leftovers(recordings: Path) -> list[str]:
    return [path.name for path in recordings.iterdir() if path.name.startswith(".import-")]


def test_what_a_killed_import_left_is_removed_by_the_next(file: Path, recordings: Path) -> None:
    """SIGKILL leaves a folder that no recording can be taken for; the next import takes it away."""
    with under_way(file, recordings) as process:
        process.kill()
        process.wait()
        assert len(leftovers(recordings)) == 1
        assert list_recordings(recordings) == []
    import_otlp([file], recordings, "after", tool_version="1")
    assert leftovers(recordings) == []
    assert [one.id for one in list_recordings(recordings)] == ["after"]


def test_an_import_that_is_under_way_is_left_alone(file: Path, recordings: Path) -> None:
    """Its maker lives, so its lock is held, whatever else is imported meanwhile."""
    with under_way(file, recordings):
        [before] = leftovers(recordings)
        import_otlp([file], recordings, "meanwhile", tool_version="1")
        assert leftovers(recordings) == [before]
        assert list((recordings / before).rglob("*.wal"))


def test_only_folders_of_that_name_are_removed(recordings: Path, tmp_path: Path) -> None:
    """Files, links and other folders stay, and what a link points to as well."""
    elsewhere = tmp_path / "elsewhere"
    kept = [recordings / name for name in (".import-file", "import-1", ".other-1", ".import")]
    for path in (elsewhere, *kept[1:], recordings / ".import-1" / "deep"):
        path.mkdir(parents=True)
    kept[0].touch()
    (recordings / ".import-link").symlink_to(elsewhere)
    with scratch(recordings, ".import-") as (ours, _):
        assert set(recordings.iterdir()) == {*kept, recordings / ".import-link", ours}
        assert ours.stat().st_mode & 0o777 == 0o700
    assert not ours.exists()
    assert elsewhere.is_dir()


def test_a_folder_taken_for_a_leftover_before_it_was_locked_is_made_anew(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making and locking somebody may clear it away; the second one is ours."""
    real, taken = module._locked, []

    def robbed(path: Path) -> int | None:
        if not taken:
            taken.append(path)
            path.rmdir()
        return real(path)

    monkeypatch.setattr(module, "_locked", robbed)
    with scratch(recordings, ".import-") as (ours, _):
        assert ours.is_dir()
        assert ours != taken[0]
        assert real(ours) is None


def test_the_lock_of_a_folder_that_was_replaced_counts_for_nothing(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever locks a folder that has another in its place by then has locked nothing."""
    path = recordings / ".import-1"
    path.mkdir(parents=True)
    real = module.fcntl.flock

    def replaced(descriptor: int, operation: int) -> None:
        path.rename(recordings / "gone")
        path.mkdir()
        real(descriptor, operation)

    monkeypatch.setattr(module.fcntl, "flock", replaced)
    assert module._locked(path) is None


def test_where_no_folder_can_be_made_a_sentence_says_so(file: Path) -> None:
    """A file in place of the folder, as one example."""
    with pytest.raises(StorageError, match="cannot create"):
        import_otlp([file], file / "recordings", tool_version="1")
