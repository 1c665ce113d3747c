"""A command runs as it would by itself, and whatever signal ends, stops or continues one of its processes is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fencepost_recorder import begin, descendants, seal
from fencepost_recorder.connector import Connector
from fencepost_recorder.descendants import Descendants, Process, read_stat
from fencepost_recorder.linux import status_of_reaped

# A supervisor as a program of its own: it needs a main thread, signals and children to itself.
SUPERVISOR = """
import dataclasses, json, os, sys
from pathlib import Path
from fencepost_recorder import supervise
from fencepost_recorder.bystander import Bystander
from fencepost_recorder.heeding import Heeded
def refuse(*_):
    raise OSError
if "/proc alone" in os.environ["KNOWS"]:
    supervise.Connector = refuse
    supervise.linux.FolderWatch = refuse
if "too late" in os.environ["KNOWS"]:
    hold = supervise.Descendants.hold
    supervise.Descendants.hold = lambda self, pid: None if self.by_pid else hold(self, pid)
settings = json.loads(os.environ["RULES"])
rules = supervise.Rules(**settings, say=lambda sentence: print("said:", sentence, file=sys.stderr))
bystander = Bystander()
with Heeded(supervise.HEEDED) as heeded:
    ended = supervise.Supervisor(Path(os.environ["WAL"]), bystander, heeded, rules).run(sys.argv[1:], os.environ)
bystander.dismiss()
Path(os.environ["WAL"]).with_name("ended.json").write_text(json.dumps(dataclasses.asdict(ended)))
"""


# Linux 6.15 and later tell how a process ended to whoever holds a pidfd.
KEEPS_STATUS = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 15)


@dataclass
class Seen:
    """What became of a supervised command: how it ended, what it wrote, what was told."""

    ended: dict[str, Any]
    out: str
    err: str
    told: list[tuple[str, dict[str, Any]]]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [attributes for one, attributes in self.told if one == name]


Supervise = Callable[..., "Supervised"]


class Supervised:
    """A supervisor that runs, until `seen` waits for it."""

    def __init__(self, directory: Path, command: list[str], knows: str, rules: dict[str, Any], **options: Any) -> None:
        self.directory = directory
        env = {**os.environ, "WAL": str(directory / "wal"), "RULES": json.dumps(rules), "KNOWS": knows}
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, *command], env=env, start_new_session=True, **{**streams, **options}
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def seen(self) -> Seen:
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        ended = json.loads((self.directory / "ended.json").read_text())
        (self.directory / "ended.json").unlink()
        recording = seal(self.directory, tool_version="test")
        assert recording.gaps().num_rows == 0
        rows = sorted(recording.spans().to_pylist(), key=lambda row: row["producer_seq"])
        return Seen(ended, out, err, [(row["name"], json.loads(row["span_attributes"])) for row in rows])


@pytest.fixture(params=["all there is", "/proc alone"])
def knows(request: pytest.FixtureRequest) -> str:
    """Where the supervisor's knowledge comes from: the kernel's news as well, if they can be had, or /proc alone."""
    return str(request.param)


@pytest.fixture
def supervise(recordings: Path, knows: str) -> Iterator[Supervise]:
    running: list[Supervised] = []

    def run(*command: str, rules: dict[str, Any] | None = None, **options: Any) -> Supervised:
        directory = begin(recordings)
        running.append(Supervised(directory, list(command), knows, rules or {}, **options))
        return running[-1]

    yield run
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def python(source: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(source), *arguments]


def test_streams_and_exit_code_are_the_commands_own(supervise: Supervise) -> None:
    """What the command reads, writes and answers passes through, and its end is told."""
    running = supervise("sh", "-c", "read line; echo got $line; echo oops >&2; exit 7", stdin=subprocess.PIPE)
    assert running.process.stdin is not None
    running.process.stdin.write("hello\n")
    running.process.stdin.flush()
    seen = running.seen()
    assert (seen.out, seen.err) == ("got hello\n", "oops\n")
    assert (seen.ended["code"], seen.ended["signal"], seen.ended["crashes"]) == (7, None, 0)
    [ended], [supervised] = seen.named("exit"), seen.named("supervise")
    assert ended["process.exit.code"] == supervised["process.exit.code"] == 7
    assert ended["process.pid"] == supervised["process.pid"]


def test_a_signal_that_ends_the_command_is_told_and_answered_as_a_shell_does(supervise: Supervise) -> None:
    """A command killed by signal n is a crash, and answers 128 + n."""
    seen = supervise("sh", "-c", "kill -SEGV $$").seen()
    assert (seen.ended["code"], seen.ended["signal"]) == (139, "SIGSEGV")
    [crash] = seen.named("crash")
    assert crash["process.signal"] == "SIGSEGV"


GRANDCHILDREN = """
    import os, signal, subprocess, sys
    def end(number):
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        print(child.pid, flush=True)
        sys.stdin.readline()
        child.send_signal(number)
        assert child.wait() == -number
    for number in (signal.SIGKILL, signal.SIGTERM):
        end(number)
"""


def test_a_grandchild_that_its_own_parent_reaps_is_told_with_its_signal(supervise: Supervise) -> None:
    """Its parent lives, sees it die and goes on; the supervisor, who is no parent, still tells by which signal."""
    running = supervise(*python(GRANDCHILDREN), stdin=subprocess.PIPE)
    assert running.process.stdin is not None
    pids = []
    for _ in range(2):
        pids.append(int(running.line()))
        until(lambda: holds(running.process.pid, pids[-1]))
        running.process.stdin.write("\n")
        running.process.stdin.flush()
    seen = running.seen()
    assert seen.ended["code"] == 0
    told = [(crash["process.pid"], crash["process.signal"]) for crash in seen.named("crash")]
    due = [(pids[0], "SIGKILL"), (pids[1], "SIGTERM")]
    # An older kernel may keep it to itself; it is never told wrongly.
    assert told == due if KEEPS_STATUS else set(told) <= set(due)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that only looking can tell."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def holds(supervisor: int, pid: int) -> bool:
    """Whether the supervisor has a pidfd of that process."""
    for info in Path(f"/proc/{supervisor}/fdinfo").iterdir():
        with suppress(OSError):
            if f"Pid:\t{pid}\n" in info.read_text():
                return True
    return False


ORPHANS = """
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            sys.stdin.readline()
            os.kill(os.getpid(), 9)
        os._exit(0)
    os.wait()
"""


def test_an_orphan_is_adopted_and_waited_for(supervise: Supervise) -> None:
    """A daemon that outlives the command becomes the supervisor's child; how it ends in the grace is told."""
    running = supervise(*python(ORPHANS), stdin=subprocess.PIPE, rules={"grace_seconds": 60})
    pid = int(running.line())
    until(lambda: (stat := read_stat(pid)) is not None and stat.parent == running.process.pid)
    assert running.process.stdin is not None
    running.process.stdin.write("\n")
    running.process.stdin.flush()
    seen = running.seen()
    assert (seen.ended["code"], seen.ended["left"]) == (0, [])
    assert [(one["process.pid"], one["process.signal"]) for one in seen.named("crash")] == [(pid, "SIGKILL")]


def test_whoever_outlives_the_grace_runs_on(supervise: Supervise) -> None:
    """After the grace processes that are left are named, and left alone."""
    seen = supervise("sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!", rules={"grace_seconds": 0.2}).seen()
    pid = int(seen.out)
    stat = read_stat(pid)
    os.kill(pid, signal.SIGKILL)
    assert (seen.ended["left"], seen.ended["crashes"]) == ([pid], 0)
    assert stat is not None and stat.state in "SR"


def test_who_is_waited_for_is_said_with_the_time_that_is_left(supervise: Supervise) -> None:
    """Never that they have no time when they have some."""
    seen = supervise("sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!", rules={"grace_seconds": 0.9}).seen()
    pid = int(seen.out)
    os.kill(pid, signal.SIGKILL)
    assert f"said: the command has ended; its processes {pid} have 1 s to end, too\n" in seen.err


def test_with_end_rest_they_are_asked_and_then_made_to_end(supervise: Supervise) -> None:
    """SIGTERM comes first; who does not heed it gets SIGKILL."""
    source = """
        import os, signal, sys, time
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
            print("ready", flush=True)
            while True:
                time.sleep(60)
        sys.stdin.readline()
    """
    running = supervise(*python(source), stdin=subprocess.PIPE, rules={"grace_seconds": 0, "end_rest": True})
    assert running.line() == "ready"
    assert running.process.stdin is not None
    running.process.stdin.close()
    running.process.stdin = None
    seen = running.seen()
    assert (seen.ended["code"], seen.ended["left"]) == (0, [])
    assert seen.out == "asked\n"
    assert [one["process.signal"] for one in seen.named("crash")] == ["SIGKILL"]


def test_the_signal_that_ends_the_command_leaves_the_others_their_grace(supervise: Supervise) -> None:
    """Signal and end seen at once are one Ctrl-C, and a hangup is none; the next Ctrl-C ends the waiting."""
    source = "trap '' INT; sleep 600 >/dev/null 2>&1 & trap - INT; echo $$ $!; exec sleep 600"
    running = supervise("sh", "-c", source, rules={"grace_seconds": 60})
    supervisor = running.process.pid
    command, left = map(int, running.line().split())
    log = next((running.directory / "wal").glob("*.wal"))
    # It wakes to both of them.
    os.kill(supervisor, signal.SIGSTOP)
    until(lambda: state_of(supervisor) == "T")
    os.killpg(supervisor, signal.SIGINT)
    until(lambda: state_of(command) == "Z")
    os.kill(supervisor, signal.SIGCONT)
    until(lambda: b"crash" in log.read_bytes())
    os.kill(supervisor, signal.SIGHUP)
    assert running.process.stderr is not None
    assert running.process.stderr.readline().startswith(f"said: the command has ended; its processes {left} have ")
    os.kill(supervisor, signal.SIGINT)
    seen = running.seen()
    os.kill(left, signal.SIGKILL)
    assert (seen.ended["code"], seen.ended["left"]) == (130, [left])


def state_of(pid: int) -> str | None:
    stat = read_stat(pid)
    return stat.state if stat is not None else None


COUNTER = """
    import os, signal, sys, time
    got = []
    numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
    for number in numbers:
        signal.signal(number, lambda number, _: got.append(signal.Signals(number).name))
    print("ready", flush=True)
    while len(got) < int(sys.argv[1]):
        time.sleep(0.01)
    # A second delivery would come now.
    time.sleep(0.3)
    print(*got, flush=True)
"""


def test_a_signal_reaches_the_command_once_however_it_was_sent(supervise: Supervise) -> None:
    """Sent to fencepost alone it is passed on; sent to the whole group the command has it already."""
    running = supervise(*python(COUNTER, "3"))
    assert running.line() == "ready"
    for number, send in ((signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg), (signal.SIGUSR1, os.kill)):
        send(running.process.pid, number)
        # A signal of another number is not waited for before it is sent: they must not be taken for one another.
    seen = running.seen()
    assert sorted(seen.out.split()) == ["SIGINT", "SIGTERM", "SIGUSR1"]
    assert seen.ended["code"] == 0


def test_ignored_signals_stay_ignored(supervise: Supervise) -> None:
    """As under nohup: what was ignored when fencepost began is ignored by the command, too."""
    source = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    running = supervise(*python(source), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert running.seen().out == "True\n"


def test_the_command_starts_with_the_signals_limits_and_files_that_it_would_have(supervise: Supervise) -> None:
    """Nothing is blocked or caught, the limit of open files is the shell's, and a file the shell opened is open."""
    source = """
        import os, resource, signal, sys
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        usual = (signal.SIG_DFL, signal.SIG_IGN)
        caught = [n for n in signal.valid_signals() - {signal.SIGINT} if signal.getsignal(n) not in usual]
        print(os.read(int(sys.argv[1]), 9).decode(), blocked, caught, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    """
    reader, writer = os.pipe()
    os.write(writer, b"from shell")
    os.close(writer)
    program = ["sh", "-c", 'ulimit -n 333; exec "$@"', "sh", *python(source, str(reader))]
    seen = supervise(*program, pass_fds=(reader,)).seen()
    os.close(reader)
    assert seen.out == "from shel set() [] 333\n"


def test_stops_and_continuations_are_told(supervise: Supervise) -> None:
    """A process that is stopped is a pause, and a resume when it is continued; grandchildren as well."""
    source = """
        import subprocess, sys
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
        sys.stdin.readline()
        child.stdin.close()
        child.wait()
    """
    running = supervise(*python(source), stdin=subprocess.PIPE)
    pid = int(running.line())
    until(lambda: holds(running.process.pid, pid))
    log = next((running.directory / "wal").glob("*.wal"))
    os.kill(pid, signal.SIGSTOP)
    until(lambda: b"pause" in log.read_bytes())
    os.kill(pid, signal.SIGCONT)
    until(lambda: b"resume" in log.read_bytes())
    assert running.process.stdin is not None
    running.process.stdin.write("\n")
    running.process.stdin.flush()
    seen = running.seen()
    assert [one["process.pid"] for one in seen.named("pause") + seen.named("resume")] == [pid, pid]
    assert seen.named("resume")[0]["process.signal"] == "SIGCONT"


def test_many_processes_that_live_for_a_moment_are_all_told(supervise: Supervise, knows: str) -> None:
    """The kernel's news leave out nobody; where they cannot be had, the supervisor's own children are told at least."""
    loop = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); sh -c \"sh -c 'kill -9 \\$\\$'; true\"; done"
    seen = supervise("sh", "-c", loop).seen()
    assert seen.ended["code"] == 0
    try:
        Connector().close()
    except OSError:
        return
    if knows != "/proc alone":
        assert seen.ended["crashes"] == 20
        assert {one["process.signal"] for one in seen.named("crash")} == {"SIGKILL"}


@pytest.mark.parametrize("knows", ["all there is, too late to hold anybody but the command"])
def test_whoever_was_gone_before_it_was_held_is_told_with_its_log(supervise: Supervise) -> None:
    """Also one that exited, if it recorded: its log was heard of a moment before, or just now."""
    try:
        Connector().close()
    except OSError:
        return
    source = """
        import os
        os.environ["FENCEPOST_WAL"] = os.environ["WAL"]
        from opentelemetry import trace
        from fencepost_recorder import install
        install("work")
        for number in (0, 9, 0):
            if os.fork() == 0:
                trace.get_tracer("work").start_span("work").end()
                if number:
                    os.kill(os.getpid(), number)
                os._exit(7)
            os.wait()
    """
    seen = supervise(*python(source)).seen()
    ends = seen.named("crash") + seen.named("exit")
    assert [one.get("process.signal") or one["process.exit.code"] for one in ends] == ["SIGKILL", 7, 7, 0]
    assert [len(one.get("fencepost.producers", ())) for one in ends] == [1, 1, 1, 1]


def test_a_recording_within_is_no_crash(supervise: Supervise) -> None:
    """The bystander of a `record` that another one records ends by itself when it is dismissed, also if stopped."""
    source = """
        import sys
        from fencepost_recorder.bystander import Bystander
        bystander = Bystander()
        print(bystander.pid, flush=True)
        sys.stdin.readline()
        bystander.dismiss()
    """
    running = supervise(*python(source), stdin=subprocess.PIPE)
    pid = int(running.line())
    until(lambda: holds(running.process.pid, pid))
    os.kill(pid, signal.SIGSTOP)
    assert running.process.stdin is not None
    running.process.stdin.write("\n")
    running.process.stdin.flush()
    seen = running.seen()
    assert (seen.ended["code"], seen.ended["crashes"], seen.named("crash")) == (0, 0, [])


def test_whoever_is_reaped_between_two_questions_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not yet reaped when the kernel is asked for its status, and gone when /proc is: the kernel is asked again."""
    nobody = 2**22 + 1  # Above the highest process id that Linux gives.
    answers = iter([None, int(signal.SIGKILL)])
    monkeypatch.setattr(descendants, "status_of_reaped", lambda _: next(answers))
    assert Descendants(set()).end_of(Process(nobody, 1, "", 0, -1, 0, 0)) == (True, signal.SIGKILL)


def test_what_a_killed_supervisor_told_is_kept_and_shows_that_it_was_killed(recordings: Path) -> None:
    """Its own span has no end then, and the command is not harmed."""
    directory = begin(recordings)
    source = "import sys; print('ready', flush=True); sys.stdin.readline(); print('done', flush=True)"
    running = Supervised(directory, python(source), "all there is", {}, stdin=subprocess.PIPE)
    assert running.line() == "ready"
    log = next((directory / "wal").glob("*.wal"))
    until(lambda: b"supervise" in log.read_bytes())
    running.process.kill()
    running.process.wait()
    assert running.process.stdin is not None
    running.process.stdin.write("\n")
    running.process.stdin.flush()
    assert running.line() == "done"
    running.process.communicate()
    [span] = seal(directory, tool_version="test").spans().to_pylist()
    assert (span["name"], span["duration_time_unix_nano"]) == ("supervise", None)


def test_how_a_stranger_ended_is_known_once_it_was_reaped() -> None:
    """The kernel tells it through the pidfd from Linux 6.15 on; before, nobody can know, and nothing is made up."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    pidfd = os.pidfd_open(child.pid)
    try:
        assert status_of_reaped(pidfd) is None
        child.kill()
        child.wait()
        assert status_of_reaped(pidfd) == (signal.SIGKILL if KEEPS_STATUS else None)
    finally:
        os.close(pidfd)
        if child.stdin is not None:
            child.stdin.close()
