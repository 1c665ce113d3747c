"""`fencepost record`: a command is recorded with all that befalls it, and behaves as it would by itself."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from analyzer.lab import PROGRAM, fencepost, one_line

from fencepost_recorder import open_recording, recover
from fencepost_recorder.receiver import Counts
from fencepost_recorder.session import Ran
from fencepost_recorder.supervise import Ended, Killed

PATIENCE_S = 60
DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / page for page in ("reference/cli.md", "how-to/record-a-command.md", "how-to/receive-otlp.md")]
TELLING = """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    provider.get_tracer("shop").start_span("sold").end()
    provider.shutdown()
"""


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start `fencepost record` in an empty folder."""

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
        command = [*PROGRAM, "record", *arguments]
        return subprocess.Popen(command, start_new_session=True, **{**streams, **options})

    return start


def python(source: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(source), *arguments]


def rows(directory: Path, **where: Any) -> list[dict[str, Any]]:
    """The spans of a recording that are as stated, in the order of their names."""
    spans = open_recording(directory).spans().to_pylist()
    return sorted(
        (row for row in spans if all(row[key] == value for key, value in where.items())), key=lambda row: row["name"]
    )


def test_stdout_is_the_commands_and_what_fencepost_says_is_on_stderr(
    record: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """The command's output and exit code pass through; the report says what was recorded, and what to do next."""
    out, err = record("--id", "told", "--", "sh", "-c", "echo mine; exit 7").communicate(timeout=PATIENCE_S)
    assert out == "mine\n"
    assert "recorded  told: 2 spans, no gaps\n" in err
    assert "next:  " in err and "no spans of the command's own came" in err
    assert [row["name"] for row in rows(tmp_path / "recordings" / "told")] == ["exit", "supervise"]


def test_spans_that_are_sent_and_spans_that_are_recorded_meet_in_one_recording(
    record: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """What a program exports comes to the receiver, which the environment names; the report counts it."""
    process = record("--id", "sent", "--json", "--", *python(TELLING))
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (0, "")
    document = json.loads(err)
    assert document["received"]["spans"] == 1
    assert document["command"] == {
        "exit_code": 0,
        "signal": None,
        "crashes": 0,
        "killed": [],
        "left": [],
        "unwatched": 0,
    }
    assert document["missing"] == {"unsequenced": {"gaps": 1, "lost": None}}
    assert [row["name"] for row in rows(tmp_path / "recordings" / "sent", scope_name="shop")] == ["sold"]


def test_a_killed_process_is_named_and_the_report_can_be_a_file(
    record: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Who was killed, by which signal, is said; `--report` writes the document beside."""
    process = record("--id", "killed", "--report", "report.json", "--", "sh", "-c", "kill -9 $$")
    _, err = process.communicate(timeout=PATIENCE_S)
    report = json.loads((tmp_path / "report.json").read_text())
    [killed] = report["command"]["killed"]
    assert process.returncode == report["command"]["exit_code"] == 137
    assert (killed["name"], killed["signal"]) == ("sh", "SIGKILL")
    assert f"killed    sh (process {killed['pid']}) by SIGKILL\n" in err


def test_a_killed_process_that_was_gone_at_once_has_no_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that only the kernel's news told of the number and the signal are said."""
    ended = Ended(0, None, 1, (Killed(4242, "", "SIGKILL"),), (), 0, 1)
    monkeypatch.setattr("fencepost_recorder.session.record_command", lambda *_, **__: Ran(ended, Counts()))
    done = fencepost("--recordings", here / "new", "record", "--", "true")
    assert (done.code, done.err.splitlines()[0]) == (0, "killed    process 4242, of unknown name, by SIGKILL")


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_start_is_one_sentence_and_no_recording(
    command: str, code: int, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not found is 127 and not executable 126, as shells and wrappers have it."""
    done = fencepost("--recordings", here / "new", "record", "--", command)
    assert (done.code, done.out) == (code, "")
    assert one_line(done.err) and command in done.err
    assert list((here / "new").iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_what_keeps_us_from_starting_it_is_one_sentence_and_no_recording(tmp_path: Path) -> None:
    """As a limit of the size of files does, under which no log can be begun."""
    script = 'ulimit -f 0; exec "$@"'
    command = ["sh", "-c", script, "sh", *PROGRAM, "--recordings", str(tmp_path), "record", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2 and one_line(done.stderr) and "ulimit -f" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say what to record"),
        (("--listen", "a", "b"), "at most one HOST:PORT"),
        (("--listen", "--", "a", "--id", "x"), "at most one HOST:PORT"),
        (("--listen", "127.0.0.1:0", "--no-such"), "No such option"),
        (("--listen", "127.0.0.1:http"), "is no address"),
        (("--listen", "0.0.0.0:0"), "certificate"),
        (("--listen", "--tls-cert", "x"), "go together"),
        (("--token-file", "x", "--", "true"), "--listen"),
        (("--grace", "-1", "--", "true"), "--grace"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence_and_leaves_no_recording(
    arguments: tuple[str, ...], said: str, here: Path
) -> None:
    """A wrong option is exit code 2, one sentence, and no folder."""
    done = fencepost("--recordings", here / "new", "record", *arguments)
    assert (done.code, done.out) == (2, "")
    assert one_line(done.err) and said in done.err
    assert not (here / "new").exists() or list((here / "new").iterdir()) == []


def test_a_recording_that_was_moved_away_meanwhile_is_not_called_safe_where_it_was(here: Path) -> None:
    # A process of its own: this one has children that would be waited for, and told of.
    moving = ["record", "--id", "a", "--", "mv", str(here / "new" / "a"), str(here / "b")]
    command = [*PROGRAM, "--recordings", str(here / "new"), *moving]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr) and "any more: if it was moved" in done.stderr and "safe" not in done.stderr


def test_the_environment_names_the_receiver_and_leaves_the_rest_alone(
    record: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Traces go to the receiver; metrics and logs stay with the collector that was chosen; PYTHONPATH is untouched."""
    names = ("TRACES_ENDPOINT", "TRACES_PROTOCOL", "TRACES_HEADERS", "ENDPOINT", "PROTOCOL")
    source = f"""
        import json, os
        kept = [os.environ.get("OTEL_EXPORTER_OTLP_" + name) for name in {names}]
        print(json.dumps([*kept, *map(os.environ.get, ("OTEL_METRICS_EXPORTER", "PYTHONPATH", "FENCEPOST_WAL"))]))
    """
    chosen = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://tracing:4317",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "key=secret",
        "PYTHONPATH": "/somewhere",
    }
    for given in ({}, chosen):
        process = record("--", *python(source), env={**os.environ, **given})
        traces, protocol, headers, endpoint, _, metrics, path, wal = json.loads(
            process.communicate(timeout=PATIENCE_S)[0]
        )
        assert traces.startswith("http://127.0.0.1:") and traces.endswith("/v1/traces")
        assert (protocol, headers) == ("http/protobuf", None)
        assert endpoint == given.get("OTEL_EXPORTER_OTLP_ENDPOINT", traces.removesuffix("/v1/traces"))
        assert metrics == (None if given else "none")
        assert path == given.get("PYTHONPATH", os.environ.get("PYTHONPATH"))
        assert Path(wal).parent.parent == tmp_path / "recordings"


def test_a_killed_fencepost_leaves_a_recording_that_seal_finishes(
    record: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """SIGKILL of fencepost itself: the command runs on, and what was recorded can be sealed."""
    process = record(
        "--id",
        "left",
        "--",
        *python("import sys; print('on', flush=True); sys.stdin.readline()"),
        stdin=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "on\n"
    process.kill()
    process.wait()
    process.communicate(timeout=PATIENCE_S)
    recording = recover(tmp_path / "recordings" / "left", tool_version="test")
    assert [(row["name"], row["duration_time_unix_nano"]) for row in recording.spans().to_pylist()] == [
        ("supervise", None)
    ]


# On a terminal

TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Shell:
    """An interactive bash with job control on a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        env = {**os.environ, "PS1": "prompt> ", "TERM": "dumb", "LC_ALL": "C.UTF-8"}
        self._bash = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, "bash", "--norc", "--noprofile", "-i"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env=env,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""
        self.await_("prompt> ")

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def await_(self, word: str) -> str:
        """Wait until the terminal shows this, and take everything up to it."""
        deadline = time.monotonic() + PATIENCE_S
        while word not in self.shown:
            assert select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0], self.shown
            self.shown += os.read(self._ours, 65_536).decode(errors="replace")
        before, _, self.shown = self.shown.partition(word)
        return before

    def close(self) -> None:
        os.close(self._ours)
        self._bash.wait(PATIENCE_S)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "record").write_text(f'#!/bin/sh\nexec {" ".join(map(_quoted, PROGRAM))} record "$@"\n')
    (tmp_path / "record").chmod(0o700)
    made = Shell(tmp_path)
    yield made
    made.close()


def _quoted(word: str) -> str:
    return f"'{word}'"


def test_ctrl_c_reaches_the_command_once_and_then_the_recording_is_sealed(shell: Shell, tmp_path: Path) -> None:
    """The terminal interrupts the command itself; fencepost adds nothing, and seals, also when interrupted again."""
    (tmp_path / "count.py").write_text(
        "import signal, sys, time\n"
        "got = []\n"
        "signal.signal(signal.SIGINT, lambda *_: got.append(1))\n"
        "print('rea' + 'dy', flush=True)\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('interr' + 'upted', len(got), flush=True)\n"
        "sys.exit(7)\n"
    )
    shell.type(f"./record --id once -- {sys.executable} count.py; echo co''de $?\n")
    shell.await_("ready")
    shell.type("\x03")
    shell.await_("interrupted 1")
    shell.type("\x03\x03")
    shell.await_("recorded  once")
    shell.await_("code 7")
    assert open_recording(tmp_path / "recordings" / "once").manifest.spans == 2


def test_ctrl_z_stops_the_job_and_fg_continues_it(shell: Shell, tmp_path: Path) -> None:
    """To the shell it is one job: stopped as a whole, continued as a whole, its input its own; both are told."""
    shell.type("./record --id paused -- sh -c 'echo rea''dy; read line; echo got $line'\n")
    shell.await_("ready")
    shell.type("\x1a")
    shell.await_("Stopped")
    shell.await_("prompt> ")
    shell.type("fg\n")
    shell.await_("record")
    shell.type("hello\n")
    shell.await_("got hello")
    shell.await_("recorded  paused")
    told = [row["name"] for row in rows(tmp_path / "recordings" / "paused")]
    assert told == ["exit", "pause", "resume", "supervise"]
    shell.type("echo co''de $?\n")
    shell.await_("code 0")


def test_in_a_pipe_both_sides_have_the_terminal(shell: Shell) -> None:
    """`fencepost record … | reader` is one job: the reader may read from the terminal."""
    shell.type("./record -- echo first | { cat; read line </dev/tty; echo se''cond $line; }\n")
    shell.await_("first")
    shell.type("input\n")
    shell.await_("second input")


# Where nobody hears it


def unread() -> int:
    """The end to write to of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("stderr", [lambda: os.open("/dev/full", os.O_WRONLY), unread], ids=["full", "unread"])
def test_what_cannot_be_said_decides_nothing(
    stderr: Callable[[], int], record: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """With a stderr that takes nothing the command is watched to the end, sealed and answered for as ever."""
    words = ["--id", "unheard", "--report", "report.json", "--grace", "0.7", "--", "sh", "-c", "sleep 600 & exit 7"]
    descriptor = stderr()
    process = record(*words, stdout=subprocess.DEVNULL, stderr=descriptor)
    os.close(descriptor)
    code = process.wait(PATIENCE_S)
    told = json.loads((tmp_path / "report.json").read_text())["command"]
    [left] = told["left"]
    os.kill(left, signal.SIGKILL)
    assert code == told["exit_code"] == 7
    assert open_recording(tmp_path / "recordings" / "unheard").manifest.spans == 2


@pytest.mark.parametrize(
    ("stream", "more", "code"), [("2", (), 0), ("1", (), 0), ("1", ("--json",), 2)], ids=["said", "told", "asked for"]
)
def test_what_came_is_sealed_whether_or_not_anybody_hears_of_it(
    stream: str, more: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    """Of --listen no word is worth a recording or an exit code; but a document that was asked for has to be written."""
    words = ("--id", "unheard", "--grpc-port", "0", "--listen", "127.0.0.1:0", *more)
    command = ["bash", "-c", f'exec "$@" {stream}>/dev/full', "bash", *PROGRAM, "record", *words]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        # It is made once signals are heeded.
        wait_for((tmp_path / "recordings" / "unheard" / "wal").exists, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    assert open_recording(tmp_path / "recordings" / "unheard").manifest.spans == 0


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    while not happened():
        assert process.poll() is None, process.communicate()
        select.select([], [], [], 0.005)


class Closing:
    """A terminal with one program on it, to be closed as when a connection breaks."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-c", TAKE_TERMINAL, *PROGRAM, "record", *words]
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        self._process = subprocess.Popen(command, cwd=folder, start_new_session=True, **streams)
        os.close(theirs)

    def close_after(self, word: str) -> int:
        """Closes when this is shown; the program's exit code."""
        shown = b""
        while word.encode() not in shown:
            assert select.select([self._ours], [], [], PATIENCE_S)[0], shown
            shown += os.read(self._ours, 65_536)
        os.close(self._ours)
        return self._process.wait(PATIENCE_S)


def test_a_terminal_that_closes_ends_neither_watching_nor_sealing(tmp_path: Path) -> None:
    """A worker that ignores the hangup is watched on, and left when its grace is over."""
    command = 'trap "" HUP; sleep 600 & trap - HUP; echo ready; exec sleep 600'
    words = ("--id", "hung", "--report", "report.json", "--grace", "0.7", "--", "sh", "-c", command)
    code = Closing(tmp_path, *words).close_after("ready")
    [left] = json.loads((tmp_path / "report.json").read_text())["command"]["left"]
    os.kill(left, signal.SIGKILL)
    assert code == 128 + signal.SIGHUP
    assert [row["name"] for row in rows(tmp_path / "recordings" / "hung")] == ["crash", "supervise"]


def test_listening_on_a_terminal_that_closes_is_sealed(tmp_path: Path) -> None:
    """The hangup ends it like Ctrl-C."""
    words = ("--id", "hung", "--grpc-port", "0", "--listen", "127.0.0.1:0")
    assert Closing(tmp_path, *words).close_after("ends and seals it") == 0
    assert open_recording(tmp_path / "recordings" / "hung").manifest.spans == 0


# Listening


def listening(process: subprocess.Popen[str]) -> str:
    """The address over HTTP that the process says."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("listening on http://"), line
    return line.split()[2].removesuffix(";")


def test_listening_takes_traces_until_it_is_told_to_end(
    record: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """`--listen` says where, answers an OTLP request, and on SIGTERM seals what came."""
    process = record("--id", "heard", "--json", "--grpc-port", "0", "--listen", "127.0.0.1:0")
    address = listening(process)
    span = {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "sold", "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"scope": {"name": "shop"}, "spans": [span]}]}]}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["received"]["spans"] == 1
    assert [row["name"] for row in rows(tmp_path / "recordings" / "heard")] == ["sold"]


def test_the_documented_line_listens_off_loopback(record: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """With --listen the options after HOST:PORT count as those before it do, as the pages have it."""
    [line] = set(re.findall(r"fencepost record (--listen \S+:\S.*)", "".join(page.read_text() for page in PAGES)))
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (tmp_path / "token").write_text("secret\n")
    words = shlex.split(line.replace("0.0.0.0:4318", "0.0.0.0:0"))
    process = record(*words, "--grpc-port", "0", "--id", "afar")
    assert process.stderr is not None
    said = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert said.startswith("listening on https://0.0.0.0:") and "recording afar" in said, said + err
    assert process.returncode == 0 and out.startswith("recorded  afar: no spans, ")


@pytest.mark.parametrize("dashes", [(), ("--",)])
def test_a_commands_options_are_its_own(
    dashes: tuple[str, ...], record: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Whatever follows the command goes to it untouched, also what looks like an option of `record`."""
    process = record("--id", "mine", *dashes, "echo", "--id", "x", "--listen", "--", "--no-such")
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (0, "--id x --listen -- --no-such\n")
    assert [one.name for one in (tmp_path / "recordings").iterdir()] == ["mine"]


def test_a_port_that_is_taken_is_one_sentence_and_no_recording(
    record: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Two receivers on one port: the second says so."""
    first = record("--id", "first", "--grpc-port", "0", "--listen", "127.0.0.1:0")
    port = listening(first).split(":")[2].split("/")[0]
    second = record("--id", "second", "--grpc-port", "0", "--listen", f"127.0.0.1:{port}")
    _, err = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 2 and one_line(err) and port in err
    assert not (tmp_path / "recordings" / "second").exists()
    first.send_signal(signal.SIGINT)
    out, _ = first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 0 and out.startswith("recorded  first: no spans, ")
