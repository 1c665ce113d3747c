"""The command's outside: help, names, exit codes, and one sentence for whatever goes wrong."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from analyzer.lab import fencepost, one_line

from fencepost_analyzer import catalogue
from fencepost_analyzer.cli import app, failures
from fencepost_analyzer.errors import QueryError
from fencepost_analyzer.version import __version__
from fencepost_recorder import RecordingDamaged, RecordingUnsealed
from fencepost_runtime.errors import PolicyError

HEAVY = ("duckdb", "pyarrow", "opentelemetry", "rich", "fencepost_recorder", "fencepost_runtime")


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    root: Any = typer.main.get_command(app.build())
    for name, command in root.commands.items():
        nested = getattr(command, "commands", None)
        if nested is None:
            yield (name,), command
        else:
            yield from (((name, inner), one) for inner, one in nested.items())


COMMANDS = dict(commands())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_by_example(words: tuple[str, ...]) -> None:
    """Each command's help begins with what it does and shows it called, and says what every option means."""
    done = fencepost(*words, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"\n    fencepost {' '.join(words)}" in done.out
    assert all(one.help for one in COMMANDS[words].params if one.name != "help")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_takes_json(words: tuple[str, ...]) -> None:
    """--json is an option of every command."""
    assert "--json" in [option for one in COMMANDS[words].params for option in one.opts]


@pytest.mark.parametrize("words", sorted({*COMMANDS, *(words[:1] for words in COMMANDS)}), ids=" ".join)
def test_the_list_of_commands_cuts_no_sentence(words: tuple[str, ...]) -> None:
    """Beside its name every command has a whole sentence."""
    lines = fencepost(*words[:-1], "--help").out.splitlines()
    (line,) = [line for line in lines if line.split()[:1] == [words[-1]]]
    assert line.endswith(".") and not line.endswith("...")


def test_help_names_every_exit_code() -> None:
    """The root's help says what 0, 1, 2, 3 and 130 mean, and which commands there are."""
    done = fencepost("--help")
    for code in ("0 ", "1 ", "2 ", "3 ", "130 "):
        assert f"\n    {code}" in done.out
    assert done.code == 0


def test_help_imports_nothing_heavy() -> None:
    """`fencepost --help` answers at once: no DuckDB, Arrow, OpenTelemetry, Rich or other package of ours."""
    program = (
        "import sys; from fencepost_analyzer.cli import main; code = main(['--help']); "
        f"print([name for name in {HEAVY} if name in sys.modules], code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[] 0"


def test_version() -> None:
    """--version prints name and version, on stdout."""
    assert fencepost("--version").out == f"fencepost {__version__}\n"


@pytest.mark.parametrize("words", [(), ("postmortem",)])
def test_a_group_alone_shows_its_help_and_did_nothing(words: tuple[str, ...]) -> None:
    """Without a command there is the help, on stderr, and the code of a usage error."""
    done = fencepost(*words)
    assert (done.code, done.out) == (2, "")
    assert "Commands:" in done.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("chek", "latest"), "Did you mean 'check'"),
        (("check",), "see `fencepost check --help`"),
        (("check", "latest", "more"), "see `fencepost check --help`"),
        (("check", "latest", "--wat"), "--wat"),
        (("list", "--limit", "x"), "--limit"),
        (("list", "--limit", "0"), "--limit"),
        (("check", "incidnet"), "incident"),
        (("show", "nowhere-at-all"), "recording"),
        (("show", "incident", "--job", "nope"), "has no job 'nope'"),
        (("policies", "saef"), "safe"),
        (("replay", "incident", "--policy", "fencd"), "fenced"),
        (("replay", "incident", "--set", "leese_ms=5"), "lease_ms"),
        (("replay", "incident", "--set", "lease_ms"), "FIELD=VALUE"),
        (("replay", "incident", "--set", "renew=maybe"), "true or false"),
        (("replay", "incident", "--set", "name=foo"), "--policy NAME chooses another one"),
        (("explore", "incident", "--set", "name=foo"), "--policy NAME chooses another one"),
        (("replay", "hostile"), "fencepost run"),
        (("failure-modes", "FM-33"), "FM-003"),
        (("run", "fm003"), "FM-003"),
        (("run", "missing.toml"), "missing.toml"),
        (("run", "FM-003", "--policy", "nave"), "naive"),
        (("run", "mine.toml", "--near-miss"), "--near-miss"),
        (("invariants", "INV-1"), "INV-001"),
        (("query", "incident"), "SELECT"),
        (("query", "incident", "SELECT 1", "--file", "x.sql"), "SELECT"),
        (("query", "incident", "SELEC 1"), "syntax error"),
        (("query", "incident", "SELECT * FROM evnts"), "SHOW TABLES"),
        (("query", "incident", "SELECT event, at FROM events"), 'must be quoted: "at"'),
        (("query", "incident", "DROP TABLE events"), "only"),
        (("query", "incident", "--file", "missing.sql"), "missing.sql"),
        (("check", "incident", "--invariants", "missing"), "missing"),
        (("import", "missing.jsonl"), "missing.jsonl"),
        (("postmortem", "verify", "missing"), "fencepost postmortem new"),
        (("postmortem", "attach", "missing"), "--query"),
        (("run", "FM-003", "--simulate", "--id", "../up"), "recording id"),
        (("--recordings", "/dev/null", "list"), "/dev/null"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input_gets_one_sentence_with_the_way_out(arguments: tuple[str, ...], hint: str, here: Path) -> None:
    """Whatever cannot be done ends with code 2, nothing on stdout, and one line on stderr that helps."""
    done = fencepost(*arguments)
    assert (done.code, done.out) == (2, "")
    assert one_line(done.err) and done.err.startswith("fencepost: ")
    assert hint in done.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "a"), "a: the file system is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a"), "a: there is no such file"),
        (OSError(errno.EIO, "Input/output error", "a"), "a: input/output error"),
        (OSError("odd"), "oserror"),
        (MemoryError(), "not enough memory"),
        (QueryError("No."), "No."),
        (PolicyError("No such policy."), "No such policy."),
        (RecordingDamaged("it is damaged"), "it is damaged."),
        (RecordingUnsealed("it is open"), "fencepost seal"),
        (ZeroDivisionError("oops\nsecond line"), "FENCEPOST_DEBUG=1"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_failure_becomes_one_sentence(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the three trees, of the system and of ourselves end with code 2 and one line, never a traceback."""

    def fail() -> dict[str, Any]:
        raise error

    monkeypatch.setattr(catalogue, "failure_modes", fail)
    done = fencepost("failure-modes")
    assert (done.code, done.out) == (2, "")
    assert one_line(done.err) and said in done.err


def test_the_traceback_is_there_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """FENCEPOST_DEBUG=1 lets through what went wrong, for a report."""

    def fail() -> int:
        raise ZeroDivisionError

    monkeypatch.setenv("FENCEPOST_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        failures.guarded(fail)


def test_a_hostile_name_in_a_complaint_is_escaped() -> None:
    """An argument that an attacker chose does not reach the terminal through the error about it."""
    done = fencepost("check", "\x1b[2J\u202eevil")
    assert one_line(done.err) and done.err[:-1].isprintable()


def test_common_options_stand_before_or_after_the_command(shelf: Path) -> None:
    """`--recordings` and `--json` mean the same in front of the command and behind it."""
    before = fencepost("--recordings", shelf, "--json", "list")
    after = fencepost("list", "--recordings", shelf, "--json")
    assert before == after
    assert before.json["total"] == 3


@pytest.mark.usefixtures("here")
def test_the_environment_names_the_folder_and_an_option_wins(tmp_path: Path) -> None:
    """FENCEPOST_RECORDINGS is the default folder; --recordings goes before it."""
    assert fencepost("list", "--json").json["total"] == 3
    assert fencepost("list", "--json", "--recordings", tmp_path / "empty").json["total"] == 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("run", "FM-006"), "publish lost"),
        (("failure-modes", "FM-006"), "cannot be run yet"),
        (("invariants", "INV-006"), "acknowledged means durable"),
        (("run", "fm-001", "--id", ""), "--id"),
        (("run", "fm-001", "--id", "a", "--id", "b"), "given twice"),
        (("postmortem", "attach", "pm", "--file", "a", "--file", "b"), "given twice"),
        (("postmortem", "new", "incident", "--title", ""), "empty"),
    ],
)
def test_a_slip_is_said_not_guessed(here: Path, words: tuple[str, ...], hint: str) -> None:
    """What is planned is no misspelling, and an option that is empty or given twice is refused: nothing is made."""
    done = fencepost(*words, "--recordings", "own") if words[0] == "run" else fencepost(*words)
    assert (done.code, done.out) == (2, "")
    assert hint in done.err and one_line(done.err)
    assert not (here / "own").exists()
