"""A recording is believed only while every byte of it is the one that was sealed."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fencepost_recorder import (
    Recording,
    RecordingDamaged,
    RecordingExists,
    RecordingNotFound,
    StorageError,
    begin,
    list_recordings,
    open_recording,
    resolve,
    seal,
)
from fencepost_recorder.durable import DurableFile

VERSION = "0.0.test"


@pytest.fixture
def sealed(lab: Any) -> Recording:
    for number in range(3):
        lab.tracer.start_span(f"s{number}").end()
    recording: Recording = lab.seal()
    return recording


def opened(directory: Path) -> Recording:
    recording = open_recording(directory)
    recording.spans()
    recording.gaps()
    return recording


def test_every_flipped_byte_of_a_recording_is_found_and_its_file_named(sealed: Recording) -> None:
    for path in sorted(path for path in sealed.directory.rglob("*") if path.is_file()):
        original = path.read_bytes()
        # Every byte of the small files; of the spans every eleventh, and the end of the footer whole.
        step = 11 if len(original) > 4000 else 1
        places = {*range(0, len(original), step), *range(max(len(original) - 64, 0), len(original))}
        for at in places:
            damaged = bytearray(original)
            damaged[at] ^= 0x01
            path.write_bytes(damaged)
            with pytest.raises(RecordingDamaged, match=path.name):
                open_recording(sealed.directory)
        path.write_bytes(original)
    opened(sealed.directory)


def test_a_cut_file_is_found_and_named(sealed: Recording) -> None:
    for path in sorted(path for path in sealed.directory.rglob("*") if path.is_file()):
        original = path.read_bytes()
        for size in (0, len(original) // 2, len(original) - 1):
            path.write_bytes(original[:size])
            with pytest.raises(RecordingDamaged, match=path.name):
                open_recording(sealed.directory)
        path.write_bytes(original)


def test_a_missing_file_is_found_and_named(sealed: Recording) -> None:
    (sealed.directory / "gaps.parquet").unlink()
    with pytest.raises(RecordingDamaged, match=r"gaps\.parquet in .* is missing"):
        open_recording(sealed.directory)


def test_a_recording_without_its_manifest_is_damaged_not_absent(sealed: Recording) -> None:
    (sealed.directory / "manifest.json").unlink()
    with pytest.raises(RecordingDamaged, match=r"has lost its manifest\.json"):
        open_recording(sealed.directory)


@pytest.mark.parametrize("name", ["part-00001.parquet", ".hidden.parquet", "_x", "part-00000.parquet.tmp"])
def test_a_foreign_file_among_the_spans_is_found_and_named(sealed: Recording, name: str) -> None:
    (sealed.directory / "spans" / name).write_bytes(b"")
    with pytest.raises(RecordingDamaged, match=f"spans/{name} in .* does not belong"):
        open_recording(sealed.directory)


def test_a_foreign_name_cannot_write_to_the_terminal(sealed: Recording) -> None:
    (sealed.directory / "spans" / "\x1b[31mred\n").write_bytes(b"")
    with pytest.raises(RecordingDamaged) as caught:
        open_recording(sealed.directory)
    assert str(caught.value).isprintable()


def test_the_manifest_of_another_recording_is_found(sealed: Recording, recordings: Path) -> None:
    other = seal(begin(recordings, "other"), tool_version=VERSION)
    shutil.copy(other.directory / "manifest.json", sealed.directory / "manifest.json")
    with pytest.raises(RecordingDamaged, match=r"part-00000\.parquet"):
        open_recording(sealed.directory)


def test_a_link_in_place_of_a_file_is_not_followed(sealed: Recording, tmp_path: Path) -> None:
    for name in ("gaps.parquet", "manifest.json", "spans/part-00000.parquet", "spans"):
        path, moved = sealed.directory / name, tmp_path / "moved"
        path.rename(moved)
        path.symlink_to(moved)
        with pytest.raises(RecordingDamaged):
            open_recording(sealed.directory)
        path.unlink()
        moved.rename(path)
    opened(sealed.directory)


def test_a_file_that_changes_after_opening_is_not_believed(sealed: Recording) -> None:
    recording = open_recording(sealed.directory)
    path = sealed.directory / "spans" / "part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordingDamaged, match="hash does not match"):
        recording.spans()


def resealed(path: Path, change: Any) -> None:
    """A forged manifest, with a right hash."""
    import hashlib

    values = json.loads(path.read_text())
    values.pop("sha256")
    change(values)
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    values["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "spans/../manifest.json", "spans/part-00000.parquet\0"]
)
def test_a_forged_manifest_cannot_name_a_file_outside(sealed: Recording, name: str) -> None:
    path = sealed.directory / "manifest.json"
    resealed(path, lambda values: values["files"][0].update(path=name))
    with pytest.raises(RecordingDamaged, match=r"manifest\.json in .*lab is damaged"):
        open_recording(sealed.directory)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("files"),
        lambda values: values.update(files=[]),
        lambda values: values.update(files=values["files"] * 2),
        lambda values: values.update(surprise=1),
        lambda values: values["files"][0].update(rows=99),
        lambda values: values["files"].reverse() or values["files"][0].update(sha256="x"),
        lambda values: values.update(format="other"),
        lambda values: values.update(format_version=3),
    ],
)
def test_a_forged_manifest_of_another_shape_is_refused(sealed: Recording, change: Any) -> None:
    resealed(sealed.directory / "manifest.json", change)
    with pytest.raises(RecordingDamaged):
        opened(sealed.directory)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(spans="many"),
        lambda values: values.update(spans=values["spans"] + 1),
        lambda values: values.update(gaps=1),
        lambda values: values.update(created_unix_nano="yesterday"),
        lambda values: values.update(id=None),
        lambda values: values.update(seed="x"),
        lambda values: values.update(commit=1),
        lambda values: values.update(imported=[]),
        lambda values: values["producers"][0].update(frames=None),
        lambda values: values["producers"][0].update(producer=1),
        lambda values: values["producers"][0].update(host=["h"]),
        lambda values: values["producers"][0].update(started_unix_nano="x"),
    ],
)
def test_a_forged_manifest_of_other_values_is_damaged_and_harms_no_list(
    sealed: Recording, recordings: Path, change: Any
) -> None:
    resealed(sealed.directory / "manifest.json", change)
    with pytest.raises(RecordingDamaged, match=r"manifest\.json in .*lab is damaged"):
        open_recording(sealed.directory)
    assert [one.state for one in list_recordings(recordings)] == ["damaged"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"sha256": 1}', "\udc80"])
def test_noise_for_a_manifest_is_refused(sealed: Recording, text: str) -> None:
    (sealed.directory / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RecordingDamaged, match=r"manifest\.json in .*lab is damaged"):
        open_recording(sealed.directory)


def test_a_recording_of_very_many_processes_can_be_opened(sealed: Recording) -> None:
    """A worker that forks for every job has hundreds of thousands of them in some days."""
    one = sealed.manifest.producers[0]
    # As many bytes as 300,000 of them have.
    many = tuple(replace(one, producer=f"{number}", host="h" * 7_000) for number in range(10_000))
    (sealed.directory / "manifest.json").write_bytes(replace(sealed.manifest, producers=many).to_bytes())
    assert len(opened(sealed.directory).manifest.producers) == 10_000


def test_a_folder_without_a_recording_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RecordingNotFound, match="there is no recording in"):
            open_recording(path)


def test_listing_shows_every_recording_newest_first_with_its_state(sealed: Recording, recordings: Path) -> None:
    seal(begin(recordings, "second"), tool_version=VERSION)
    begin(recordings, "third")
    damaged = seal(begin(recordings, "fourth"), tool_version=VERSION)
    (damaged.directory / "gaps.parquet").write_bytes(b"")
    (recordings / "notes.txt").write_text("x")
    (recordings / "link").symlink_to(sealed.directory)
    (recordings / "not a recording").mkdir()
    found = {one.id: one for one in list_recordings(recordings)}
    assert {name: one.state for name, one in found.items()} == {
        "lab": "sealed",
        "second": "sealed",
        "third": "unsealed",
        "fourth": "damaged",
    }
    assert (found["lab"].spans, found["lab"].gaps, found["third"].spans) == (3, 0, None)
    size = sum(path.stat().st_size for path in sealed.directory.rglob("*") if path.is_file())
    assert found["lab"].bytes == size
    moments = [one.created for one in list_recordings(recordings)]
    assert moments == sorted(moments, reverse=True)
    assert all(abs((datetime.now(UTC) - moment).total_seconds()) < 600 for moment in moments)


def test_listing_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list_recordings(tmp_path / "absent") == []


def test_a_reference_is_an_id_a_path_or_latest(sealed: Recording, recordings: Path) -> None:
    second = begin(recordings, "second")
    os.utime(second, (4e9, 4e9))
    assert resolve(recordings, "lab") == sealed.directory
    assert resolve(recordings, str(sealed.directory)) == sealed.directory
    assert resolve(recordings, "latest") == second


@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        ("lob", "the nearest: lab"),
        ("zzzzzzzz", "the newest there is lab"),
        ("../lab/..", "the nearest: lab"),
        ("", "there is no recording"),
        ("a\0b", "there is no recording"),
    ],
)
@pytest.mark.usefixtures("sealed")
def test_an_unknown_reference_names_the_nearest_or_where_it_looked(recordings: Path, ref: str, sentence: str) -> None:
    with pytest.raises(RecordingNotFound, match=sentence):
        resolve(recordings, ref)


def test_latest_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordingNotFound, match="there are no recordings in"):
        resolve(tmp_path, "latest")


@pytest.mark.usefixtures("sealed")
def test_an_id_is_taken_once(recordings: Path) -> None:
    with pytest.raises(RecordingExists, match="a recording named lab exists"):
        begin(recordings, "lab")
    assert len({begin(recordings).name for _ in range(20)}) == 20


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "missing"])
def test_what_stands_in_a_manifests_place_harms_only_its_own_recording(lab: Any, recordings: Path, kind: str) -> None:
    """A folder, a pipe, a link or nothing where the manifest was: listed as damaged, named when opened."""
    lab.seal()
    other = begin(recordings, "other")
    path = lab.directory / "manifest.json"
    path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(other)
    assert {one.id: one.state for one in list_recordings(recordings)} == {"lab": "damaged", "other": "unsealed"}
    with pytest.raises(RecordingDamaged, match=r"(lab has lost its|manifest\.json in .*lab cannot be)"):
        open_recording(resolve(recordings, "lab"))


def test_a_pipe_in_the_place_of_a_log_hangs_nobody(recordings: Path) -> None:
    """Listing reads plain files only."""
    directory = begin(recordings, "piped")
    os.mkfifo(directory / "wal" / "a.wal")
    assert [one.state for one in list_recordings(recordings)] == ["unsealed"]


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    """`recordings` as a file is no name that is taken, and nothing to check the disk for."""
    (tmp_path / "recordings").write_text("")
    with pytest.raises(StorageError, match=r"recordings: it is a file, not a folder"):
        begin(tmp_path / "recordings")


def test_a_file_that_was_given_up_writes_into_no_other(tmp_path: Path) -> None:
    """A Parquet writer tells its footer when it is collected: by then its descriptor's number may be another file's."""
    file = DurableFile(tmp_path / "given-up")
    writer = pq.ParquetWriter(pa.PythonFile(file, mode="w"), pa.schema([("a", pa.int64())]))
    writer.write_table(pa.table({"a": [1]}))
    file.discard()
    with (tmp_path / "strangers").open("wb") as stranger:
        assert stranger.fileno() >= 0
        del writer
        gc.collect()
    assert (tmp_path / "strangers").read_bytes() == b""


def test_nothing_reads_on_in_the_background(sealed: Recording) -> None:
    """Arrow's scanner of datasets may still let go of Python's memory in its threads when Python ends: that aborts the
    process, or hangs it. It is not used."""
    program = """
import sys
from pathlib import Path
from fencepost_recorder import open_recording
recording = open_recording(Path(sys.argv[1]))
recording.spans(), recording.gaps(), list(recording.batches(["name"]))
sys.exit("pyarrow.dataset" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program, str(sealed.directory)], check=False).returncode == 0
