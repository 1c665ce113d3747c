"""The command as the shell runs it: streams kept apart, pipes that break, Ctrl-C, terminals."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest
from analyzer.lab import PROGRAM, bytes_of, spawn

from fencepost_analyzer.cli.failures import guarded
from fencepost_analyzer.run import scratch_parent
from fencepost_recorder import list_recordings

# Colours and the erasing of a line are Rich's own; nothing else may be on a terminal.
OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[[0-9]*[AKGJ]|\x1b\[\?25[lh]|\r")


@pytest.fixture
def env(here: Path) -> dict[str, str]:
    assert here == Path.cwd()
    return {**os.environ, "COLUMNS": "100", "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}


def on_terminal(*arguments: str, env: Mapping[str, str], columns: int = 100) -> tuple[int, str]:
    """Runs the command with both streams on a terminal of its own; its exit code and all that it showed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen([*PROGRAM, *arguments], stdout=theirs, stderr=theirs, stdin=theirs, env=dict(env)) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 65_536)
            except OSError as error:
                assert error.errno == errno.EIO  # How Linux says that the last writer closed a terminal.
                break
            if not chunk:
                break
            shown += chunk
        os.close(ours)
    return process.returncode, shown.decode("utf-8")


def test_results_and_complaints_do_not_mix(env: dict[str, str]) -> None:
    """Results are on stdout, complaints on stderr, and the exit code is the process's."""
    good = spawn("list", env=env)
    assert good.communicate()[1] == "" and good.returncode == 0
    bad = spawn("check", "nope", env=env)
    out, err = bad.communicate()
    assert (out, bad.returncode) == ("", 2) and err.startswith("fencepost: ")


@pytest.mark.parametrize("arguments", [("list",), ("query", "incident", "SELECT * FROM range(300000)")])
def test_a_reader_that_leaves_early_is_no_error(arguments: tuple[str, ...], env: dict[str, str]) -> None:
    """`fencepost … | head -1` ends quietly, by the code that shells give to a broken pipe."""
    process = spawn(*arguments, *(("--limit", "300000") if arguments[0] == "query" else ()), env=env)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process:
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">/dev/full", 2, "fencepost: the disk is full: free some space, or choose another folder.\n"),
        (">&-", 0, ""),
        ("nope 2>/dev/full", 2, ""),
        ("nope 2>&-", 2, ""),
    ],
)
def test_streams_that_take_nothing_do_not_change_the_verdict(
    redirection: str, code: int, said: str, env: dict[str, str]
) -> None:
    """Full or closed streams end with code 2 or with the command's own, never with 1, which would mean violated."""
    command = ["bash", "-c", f'"$@" {redirection}', "bash", *PROGRAM, "policies"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, said)


def test_an_encoding_without_our_letters_is_no_error(env: dict[str, str]) -> None:
    """Where stdout takes ASCII only, what it lacks is escaped and the command goes on."""
    process = spawn("list", "--limit", "1", env={**env, "PYTHONIOENCODING": "ascii"})
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.isascii() and "\\u2026" in out


def test_a_terminal_gets_colours_and_a_pipe_does_not(env: dict[str, str]) -> None:
    """On a terminal verdicts are coloured; NO_COLOR and pipes get the same words without."""
    code, shown = on_terminal("check", "incident", env=env)
    assert code == 1
    assert "\x1b[1;31m✗ violated" in shown
    assert "\x1b[32msealed" in on_terminal("list", env=env)[1]
    _, bare = on_terminal("list", env={**env, "NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", bare) and "sealed" in bare
    piped = spawn("list", env=env).communicate()[0]
    assert "\x1b" not in piped and "sealed" in piped


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "hostile", "--jobs", "50"),
        ("query", "hostile", "SELECT * FROM events"),
        ("check", "\x1b]0;title\x07\u202e"),
    ],
    ids=lambda words: words[0] + words[-1][:8],
)
def test_hostile_names_do_nothing_to_a_terminal(arguments: tuple[str, ...], env: dict[str, str]) -> None:
    """Names full of escapes, markup and overrides are shown on a terminal letter by letter."""
    _, shown = on_terminal(*arguments, env=env)
    rest = OURS.sub("", shown)
    assert rest
    bad = [one for one in rest if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and one != "\n"]
    assert bad == []
    assert "\x1b[5m" not in shown


def test_a_terminal_shows_complaints_in_one_line(env: dict[str, str]) -> None:
    """A complaint on a terminal is one sentence too, however red, and takes the place of the progress."""
    code, shown = on_terminal("check", "nope", env=env)
    assert code == 2
    assert re.fullmatch(r"\x1b\[31mfencepost: [^\x1b\n]+\.\x1b\[0m\r\n", shown.split("\x1b[2K")[-1])


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [("run", "FM-002"), ("demo",)], ids=" ".join)
def test_ctrl_c_and_a_kill_end_at_once_and_leave_nothing_half_made(
    words: tuple[str, ...], ending: signal.Signals, env: dict[str, str], here: Path
) -> None:
    """Cut off in the middle: code 128 + n, no traceback, no process left, and every recording whole or not there.

    Ctrl-C is for everybody, SIGTERM for the command alone."""
    folder = here / "own"
    process = spawn(*words, "--recordings", str(folder), env=env)
    # The moment when real processes have begun to record; the fault keeps them busy for another second.
    await_that(lambda: any(folder.glob("*/wal/*")), process)
    (os.killpg if ending is signal.SIGINT else os.kill)(process.pid, ending)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + ending
    said = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}[ending]
    assert "Traceback" not in out + err and err.endswith(f"fencepost: {said}.\n")
    assert {one.state for one in list_recordings(folder)} <= {"sealed"}
    assert not any((here / "postmortems").glob("*")) if (here / "postmortems").exists() else True
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


PROGRESS = (
    ("recommend", "incident"),
    ("explore", "incident", "--policy", "safe", "--faults", "3"),
    ("replay", "incident", "--live"),
    ("matrix", "incident"),
    ("shrink", "incident"),
    ("run", "FM-002"),
)


@pytest.mark.parametrize("words", PROGRESS, ids=lambda words: words[0])
def test_a_kill_leaves_the_terminal_as_it_was_and_no_process(
    words: tuple[str, ...], env: dict[str, str], here: Path
) -> None:
    """SIGTERM to the command alone, while it shows progress: the cursor is there again, and the code is 143."""
    ours, theirs = pty.openpty()
    command = [*PROGRAM, *words, *(("--recordings", str(here / "own")) if words[0] == "run" else ())]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=env, start_new_session=True)
    os.close(theirs)
    shown = b""
    with process, suppress(OSError):  # how Linux says that the last writer closed a terminal
        while chunk := os.read(ours, 65_536):
            if b"\x1b[?25l" not in shown and b"\x1b[?25l" in shown + chunk:
                process.terminate()
            shown += chunk
    os.close(ours)
    assert process.returncode == 143
    assert shown.endswith(b"fencepost: ended by SIGTERM.\r\n") and b"Traceback" not in shown
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") >= 0
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


# Read by every Python that starts; of those that explore it makes a long beginning.
SLOW_TO_BEGIN = """
import os, sys, time
if any("spawn_main" in word for word in sys.orig_argv):
    open(os.path.join(os.environ["BEGINNING"], str(os.getpid())), "x").close()
    time.sleep(600)
"""


def test_ctrl_c_while_the_processes_begin_is_told_once(env: dict[str, str], here: Path, tmp_path: Path) -> None:
    """Those that explore are still importing when Ctrl-C reaches them, too: they have nothing to say about it."""
    site, beginning = tmp_path / "site", tmp_path / "beginning"
    site.mkdir()
    beginning.mkdir()
    (site / "sitecustomize.py").write_text(SLOW_TO_BEGIN, "utf-8")
    env |= {"PYTHONPATH": str(site), "BEGINNING": str(beginning)}
    process = spawn("explore", "FM-002", "--workers", "2", "--into", str(here / "explored"), env=env)
    await_that(lambda: len(list(beginning.iterdir())) == 2, process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err and err.endswith("fencepost: interrupted.\n")


def await_that(happened: object, process: subprocess.Popen[str]) -> None:
    """Returns when `happened()` is true; fails when the process ends before."""
    assert callable(happened)
    while not happened():
        assert process.poll() is None, process.communicate()
        select.select([], [], [], 0.005)


def test_a_full_disk_is_said_in_a_sentence(env: dict[str, str], copy: Path) -> None:
    """When files can grow no further the end is code 2 and one sentence, and the postmortem is as it was."""
    graph = copy.parent / "graph.png"
    graph.write_bytes(b"x" * 5_000)
    before = bytes_of(copy)
    # The limit must not cut the bytecode that Python keeps beside our modules.
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *PROGRAM, "postmortem", "attach", copy, "--file", graph],
        env={**env, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"fencepost: \S+graph\.png: the file would grow too large: raise .*\n", done.stderr)
    assert bytes_of(copy) == before


@pytest.mark.parametrize("error", [RuntimeError("Query interrupted"), duckdb.InterruptException("INTERRUPT Error")])
def test_ctrl_c_while_duckdb_works_is_an_interruption(error: Exception) -> None:
    """DuckDB takes SIGINT for itself and raises an error of its own: neither a verdict nor a failure, but Ctrl-C."""

    def command() -> int:
        raise error

    with pytest.raises(KeyboardInterrupt):
        guarded(command)


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_narrow_terminal_breaks_no_sentence_into_letters(env: dict[str, str], columns: int) -> None:
    """Where a table does not fit its rows are stacked: what happened, a recording's state, a query's columns stay."""
    env = {name: value for name, value in env.items() if name != "COLUMNS"}
    code, shown = on_terminal("list", env=env, columns=columns)
    words = OURS.sub("", shown)
    assert (code, words.count("sealed")) == (0, 3)
    code, shown = on_terminal("show", "incident", "--job", "pay-2", env=env, columns=columns)
    words = " ".join(OURS.sub("", shown).split())
    assert "took the job: attempt 1," in words and "wrote pay-2/debit" in words and "INV-001" in words
    code, shown = on_terminal("query", "incident", "SELECT * FROM events LIMIT 1", env=env, columns=columns)
    assert sum(line.startswith("execution_id ") for line in OURS.sub("", shown).splitlines()) == 1


def test_what_a_killed_run_leaves_is_cleared_by_the_next(env: dict[str, str], here: Path) -> None:
    """SIGKILL leaves the queue's folder in memory; the next run removes it, once the last actor has let go of it."""
    folder, name = here / "own", f"killed-{os.getpid()}"
    scenario = f'id = "{name}"\n[[queues]]\nname = "q"\nworkload = "background"\njobs = 400\n'
    (here / "mine.toml").write_text(scenario, "utf-8")
    process = spawn("run", "mine.toml", "--recordings", str(folder), env=env)
    await_that(lambda: any(folder.glob("*/wal/*")), process)
    (left,) = [spec.parent for spec in scratch_parent().glob("fencepost-run-*/spec.json") if name in spec.read_text()]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert left.exists()
    following = spawn("run", "FM-003", "--near-miss", "--recordings", str(folder), env=env)
    assert (following.communicate(timeout=60)[1], following.returncode) == ("", 0)
    assert not left.exists()
