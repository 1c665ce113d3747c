"""`fencepost export`: to a file or a pipe, and what can still be judged of a recording that came back."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from analyzer.lab import PROGRAM, fencepost, one_line, spawn
from recorder.trace_events import drawn

from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.check import check
from fencepost_analyzer.run import run_simulated
from fencepost_recorder import export_recording, import_otlp

NAMES = {"otlp-json": "incident.jsonl", "otlp": "incident.pb", "perfetto": "incident.perfetto.json"}


@pytest.mark.parametrize("file_format", NAMES)
def test_a_file_is_named_for_the_recording_unless_it_is_named(here: Path, file_format: str) -> None:
    """And stdout says what is in it, as text or JSON."""
    done = fencepost("export", "incident", "--format", file_format)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"exported incident to {NAMES[file_format]}: ")
    again = fencepost("export", "incident", "--format", file_format, "--gzip", "--json")
    assert again.json["file"] == NAMES[file_format] + ".gz"
    assert again.json["bytes"] == (here / again.json["file"]).stat().st_size
    named = fencepost("export", "incident", "--format", file_format, "--output", "x.gz")
    assert named.code == 0
    assert (here / "x.gz").read_bytes() == (here / again.json["file"]).read_bytes()
    assert {path.name for path in here.iterdir()} == {NAMES[file_format], NAMES[file_format] + ".gz", "x.gz"}


def test_stdout_gets_the_bytes_and_nothing_else(here: Path) -> None:
    """The same ones as a file."""
    fencepost("export", "incident")
    for words in ((), ("--gzip",)):
        name = "incident.jsonl" + (".gz" if words else "")
        fencepost("export", "incident", *words)
        command = [*PROGRAM, "export", "incident", "--output", "-", *words]
        done = subprocess.run(command, capture_output=True, check=True)
        assert (done.stdout, done.stderr) == ((here / name).read_bytes(), b"")


@pytest.mark.usefixtures("here")
def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    """`fencepost export … | head -1`, at whatever moment."""
    process = spawn("export", "incident", "--output", "-", env=os.environ, text=False)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--output", "-", "--json"), "--output"),
        (("--format", "zip"), "there are otlp-json, otlp, perfetto"),
        (("--output", "taken.jsonl"), "--force"),
        (("--output", "folder"), "no plain file"),
        (("--output", ""), "it is empty"),
        (("--output", "none/x"), "no folder none"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_sentence(here: Path, words: tuple[str, ...], hint: str) -> None:
    """Exit code 2, nothing on stdout, nothing changed."""
    (here / "taken.jsonl").write_text("mine")
    (here / "folder").mkdir()
    done = fencepost("export", "incident", *words)
    assert (done.code, done.out) == (2, "")
    assert one_line(done.err) and hint in done.err
    assert {path.name for path in here.iterdir()} == {"taken.jsonl", "folder"}
    assert (here / "taken.jsonl").read_text() == "mine"
    assert fencepost("export", "incident", "--output", "taken.jsonl", "--force").code == 0


def on_terminal(*arguments: str) -> tuple[int, bytes]:
    ours, theirs = pty.openpty()
    with subprocess.Popen([*PROGRAM, *arguments], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65_536):
                shown += chunk
        except OSError:  # how Linux says that the last writer closed a terminal
            pass
        os.close(ours)
    return process.returncode, shown


def test_a_terminal_gets_no_bytes_that_act(here: Path) -> None:
    """Whatever a hostile recording holds: text is escaped, and what is no text is refused."""
    assert list(here.iterdir()) == []
    for file_format in ("otlp-json", "perfetto"):
        code, shown = on_terminal("export", "hostile", "--output", "-", "--format", file_format)
        text = shown.decode().replace("\r\n", "\n")
        assert code == 0
        assert all(character.isprintable() or character == "\n" for character in text)
    for words in (("--format", "otlp"), ("--gzip",)):
        code, shown = on_terminal("export", "hostile", "--output", "-", *words)
        assert code == 2
        assert b"no text for a terminal" in shown


def test_a_hostile_recording_is_still_a_trace_that_can_be_drawn(here: Path) -> None:
    """No name in it breaks out of its place."""
    assert fencepost("export", "hostile", "--format", "perfetto", "--output", "x.json").code == 0
    assert drawn((here / "x.json").read_bytes()).spans


def test_what_came_back_is_judged_by_what_was_seen(tmp_path: Path) -> None:
    """Of no failure mode is anything violated that was not; what was seen stays so, and nothing holds."""
    stayed = 0
    for name, mode in failure_modes().items():
        recording = run_simulated(mode.scenario, tmp_path / "there", recording_id=name)
        file = tmp_path / f"{name}.jsonl"
        export_recording(recording, file)
        again = import_otlp([file], tmp_path / "back", name, tool_version="test")
        before = {finding.id: finding.verdict for finding in check(recording).findings}
        after = {finding.id: finding.verdict for finding in check(again).findings}
        assert [one for one in after if after[one] == "violated" and before[one] != "violated"] == []
        assert "holds" not in after.values()
        stayed += sum(verdict == "violated" for verdict in after.values())
    assert stayed


def test_json_lines_are_what_the_collector_reads(here: Path) -> None:
    """Each line an object with resourceSpans, in UTF-8, ended by a newline."""
    fencepost("export", "incident")
    content = (here / "incident.jsonl").read_bytes()
    assert content.endswith(b"}\n")
    for line in content.decode("ascii").splitlines():
        assert list(json.loads(line)) == ["resourceSpans"]
