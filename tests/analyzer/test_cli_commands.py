"""Each command's results, as text and as JSON, and its exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from analyzer.lab import HOSTILE, Done, asked, doubtful_lines, fencepost, verified

from fencepost_analyzer import catalogue
from fencepost_analyzer.cli import main
from fencepost_recorder import begin, open_recording
from fencepost_recorder.errors import StorageError
from fencepost_runtime.policy import presets

pytestmark = pytest.mark.usefixtures("here")

BROKEN = ["INV-001", "INV-003", "INV-005", "INV-007"]


def plain(done: Done) -> bool:
    """No colours, no other escapes, no line with blanks at its end."""
    return all(line.isprintable() and line == line.rstrip() for line in done.out.splitlines())


@pytest.mark.parametrize(
    ("run", "code", "verdict"), [("incident", 1, "violated"), ("clean", 0, "holds"), ("hostile", 1, "violated")]
)
def test_the_verdict_is_the_first_line_and_the_exit_code(run: str, code: int, verdict: str) -> None:
    """`check` begins with the merged verdict and ends with its code."""
    done = asked("check", run)
    assert (done.code, done.err) == (code, "")
    assert re.match(rf"{verdict}: ", done.out)
    assert plain(done)


def test_unknown_has_its_own_exit_code_and_names_what_is_missing() -> None:
    """A recording that cannot tell ends with 3, and the verdict names the spans that are missing."""
    line = json.dumps({"resourceSpans": [{"scopeSpans": [{"scope": {"name": "other"}, "spans": [SPAN]}]}]})
    Path("other.jsonl").write_text(line, "utf-8")
    assert fencepost("import", "other.jsonl", "--id", "other", "--recordings", "own").code == 0
    done = fencepost("check", "other", "--recordings", "own")
    assert done.code == 3
    assert done.out.startswith("unknown: INV-001, ")
    assert "no mapping knows the spans of other" in done.out
    assert "it would need the spans `write {effect}`" in done.out


SPAN = {
    "traceId": "1" * 32,
    "spanId": "1" * 16,
    "name": "GET /",
    "kind": 2,
    "startTimeUnixNano": "1700000000000000000",
    "endTimeUnixNano": "1700000000000000500",
}


def test_check_tells_each_promise_and_its_witnesses() -> None:
    """`check` lists every invariant with its verdict, and of the broken ones as many witnesses as are asked for."""
    done = asked("check", "incident", "--witnesses", "1")
    assert [line.split()[0] for line in done.out.splitlines() if re.match(r"INV-\d+ +\w+.* (holds|violated) ", line)]
    assert "Effect pay-2/debit of job pay-2 was applied 2 times" in done.out
    assert "  2. " not in done.out and "… 2 more cases: --witnesses 10" in done.out
    assert "  3. " in asked("check", "incident").out
    assert "  1. " not in asked("check", "incident", "--witnesses", "0").out
    assert "fencepost show incident --job pay-2" in done.out


def test_a_replay_is_suggested_only_where_there_can_be_one() -> None:
    """`check` names `replay` after runs of the reference runtime, and not after imports."""
    assert "fencepost replay incident" in asked("check", "incident").out
    assert "fencepost replay" not in asked("check", "hostile").out


def test_check_as_json_is_the_whole_report() -> None:
    """--json prints the report as one document, with the same exit code."""
    done = asked("check", "incident", "--json")
    assert done.code == 1
    assert (done.json["recording"], done.json["violated"]) == ("incident", BROKEN)
    assert {"id", "verdict", "witnesses", "sql"} <= done.json["findings"][0].keys()


def test_check_judges_by_the_users_invariants_too() -> None:
    """--invariants adds a folder of the user's own SQL."""
    Path("own").mkdir()
    Path("own", "shop.sql").write_text(
        "-- id: SHOP-1\n-- title: nobody retries\n-- severity: low\n-- principle: P5\n-- polarity: +\n-- needs: lease\n"
        "-- claim: No job is given back.\n"
        "SELECT schedule, job_id, \"at\", [span_id] AS span_ids, 'Job ' || job_id || ' was given back.' AS sentence\n"
        "FROM events WHERE event = 'retry'\n",
        "utf-8",
    )
    done = fencepost("check", "incident", "--invariants", "own")
    assert "SHOP-1 nobody retries: violated" in done.out
    assert "Job pay-4 was given back." in done.out
    assert "SHOP-1" in fencepost("invariants", "--invariants", "own").out


def test_list_is_newest_first_and_bounded() -> None:
    """`list` shows the newest recordings, and says how many more there are."""
    done = fencepost("list", "--limit", "1")
    assert done.code == 0 and plain(done)
    assert "incident" in done.out and "hostile" not in done.out
    assert "… 2 more" in done.out
    assert fencepost("list", "--json").json["recordings"][0]["recording"] == "incident"


def test_list_tells_sealed_unsealed_and_damaged_apart(shelf: Path) -> None:
    """A recording under way and one that lost bytes are listed as what they are."""
    folder = Path("mixed")
    folder.mkdir()
    shutil.copytree(shelf / "clean", folder / "clean")
    shutil.copytree(shelf / "clean", folder / "torn")
    Path(folder, "torn", "gaps.parquet").write_bytes(b"")
    begin(folder, "open")
    states = {
        one["recording"]: one["state"] for one in fencepost("list", "--recordings", folder, "--json").json["recordings"]
    }
    assert states == {"clean": "sealed", "torn": "damaged", "open": "unsealed"}


def test_an_empty_folder_is_no_error() -> None:
    """With nothing recorded `list` says how to begin."""
    done = fencepost("list", "--recordings", "none")
    assert (done.code, "fencepost run FM-003" in done.out) == (0, True)


def test_show_tells_what_was_recorded() -> None:
    """`show` names scenario, policies, seed, spans, gaps and processes."""
    done = asked("show", "incident")
    assert done.code == 0 and plain(done)
    assert "demo: payments under naive and reports under early-ack, seed 7" in done.out
    assert "none: nothing is known to be missing" in done.out
    assert "died" in done.out or "simulated" in done.out or "closed" in done.out


def test_show_tells_the_story_of_a_frozen_worker() -> None:
    """The timeline of one job reads as it happened: taken, stopped, taken over, woken, written again."""
    done = asked("show", "incident", "--job", "pay-2")
    words = [
        *("enqueued", "took the job: attempt 1", "wrote pay-2/debit", "STOPPED (SIGSTOP)", "took back lease"),
        *("took the job: attempt 2", "wrote pay-2/debit", "acknowledged", "woke up (SIGCONT)", "wrote pay-2/credit"),
        "acknowledgement refused (stale_token)",
    ]
    position = 0
    for word in words:
        position = done.out.index(word, position) + 1
    (stale,) = [line for line in done.out.splitlines() if line.endswith("<- INV-001, INV-003") and "credit" in line]
    assert stale.split()[2].startswith("payments-worker-")


def test_show_is_bounded_and_says_so() -> None:
    """`show` tells of a few jobs, the suspects first, and says how many more there are."""
    done = asked("show", "incident", "--jobs", "1")
    assert "job pay-2" in done.out and "job pay-1" not in done.out
    assert "… 9 more jobs: --jobs 10" in done.out
    assert asked("show", "incident", "--jobs", "10").out.count("\njob ") == 10


def test_show_as_json() -> None:
    """--json holds the same: the overview, and the stories with times in nanoseconds."""
    found = asked("show", "incident", "--jobs", "2", "--json").json
    assert (found["recording"], found["jobs"], found["more_jobs"]) == ("incident", 10, 8)
    assert [one["job_id"] for one in found["stories"]] == ["pay-2", "mail-2"]
    assert found["stories"][0]["lines"][0]["event"] == "enqueue"


def test_hostile_names_are_shown_as_they_are() -> None:
    """Names that could act on a terminal are spelled out, wherever they turn up."""
    for arguments in (("show", "hostile", "--jobs", "50"), ("check", "hostile", "--witnesses", "10"), ("list",)):
        assert plain(asked(*arguments))
    assert "\\x1b[31mred\\x1b[0m" in asked("show", "hostile", "--jobs", "50").out
    assert "[bold red]markup[/bold red] :skull:" in asked("show", "hostile", "--jobs", "50").out


@pytest.mark.parametrize("output", ["table", "csv", "json"])
def test_query_never_prints_what_is_not_printable(output: str) -> None:
    """Every format of `query` is safe on a terminal; JSON keeps every character."""
    sql = "SELECT DISTINCT job_id FROM events WHERE job_id IS NOT NULL"
    done = asked("query", "hostile", sql, "--format", output)
    assert done.code == 0
    assert all(line.isprintable() for line in done.out.splitlines())
    if output == "json":
        assert done.out.isascii()
        assert {row["job_id"] for row in done.json["rows"]} == set(HOSTILE)


def test_query_formats() -> None:
    """A pipe gets CSV, --format and --json choose; null is NULL in a table, empty in CSV, null in JSON."""
    sql = "SELECT 1 AS a, NULL AS b, 'x,y' AS c, 2 AS a, 1.5 AS d"
    assert list(csv.reader(io.StringIO(asked("query", "incident", sql).out))) == [
        ["a", "b", "c", "a_2", "d"],
        ["1", "", "x,y", "2", "1.5"],
    ]
    table = asked("query", "incident", sql, "--format", "table")
    assert table.out.splitlines()[1].split() == ["1", "NULL", "x,y", "2", "1.5"]
    document = asked("query", "incident", sql, "--json").json
    assert document["rows"] == [{"a": 1, "b": None, "c": "x,y", "a_2": 2, "d": 1.5}] and document["cut"] is False


def test_query_says_when_rows_are_cut() -> None:
    """Rows beyond the limit are cut; stderr says so, stdout stays results."""
    done = asked("query", "incident", "SELECT * FROM range(10)", "--limit", "3")
    assert len(done.out.splitlines()) == 4
    assert "only the first 3 rows" in done.err
    assert asked("query", "incident", "SELECT * FROM range(10)", "--limit", "10").err == ""


def test_query_reads_a_file() -> None:
    """--file takes the SELECT from a file, such as an invariant's own."""
    Path("one.sql").write_text(fencepost("invariants", "INV-007", "--json").json["invariants"][0]["sql"], "utf-8")
    done = asked("query", "incident", "--file", "one.sql", "--json")
    assert [row["job_id"] for row in done.json["rows"]] == ["mail-2"]


def test_query_with_no_rows_and_odd_types() -> None:
    """An empty answer still has its columns; what JSON has no word for becomes text."""
    assert asked("query", "incident", "SELECT 1 AS a WHERE false").out == "a\n"
    sql = "SELECT 'nan'::DOUBLE AS n, DATE '2026-01-02' AS d, '\\x00\\xff'::BLOB AS b, [1, 2] AS l, {'k': 1} AS s"
    assert asked("query", "incident", sql, "--json").json["rows"] == [
        {"n": "nan", "d": "2026-01-02", "b": "00ff", "l": [1, 2], "s": {"k": 1}}
    ]


def test_replay_verifies_without_a_policy() -> None:
    """`replay` alone compares the histories: equal, both digests, the faults in words, code 0."""
    done = asked("replay", "incident")
    assert done.code == 0 and plain(done)
    assert done.out.splitlines()[0] == "verify incident: equal"
    digests = re.findall(r"(?:recorded|replayed)  ([0-9a-f]{64})", done.out)
    assert len(digests) == 2 and digests[0] == digests[1]
    assert "was killed (SIGKILL)" in done.out


def test_replay_forks_under_a_policy() -> None:
    """Under a healing policy the conclusion says so and the code is 0; under another it is 1."""
    healed = asked("replay", "incident", "--policy", "safe")
    assert (healed.code, "Healed: under policy safe" in healed.out) == (0, True)
    assert re.search(r"INV-001 +no duplicate effect +violated +holds", healed.out)
    still = asked("replay", "incident", "--policy", "fenced")
    assert (still.code, "Not healed: under policy fenced INV-001 still breaks." in still.out) == (1, True)


def test_replay_forks_with_one_field_changed() -> None:
    """--set changes single fields of the recorded policies, and is a fork."""
    done = asked("replay", "incident", "--set", "dedupe=effect_key", "--set", "max_attempts=5", "--json")
    assert done.json["mode"] == "fork"
    assert done.json["policies"] == {"payments": "naive*", "reports": "early-ack*"}


def test_a_replay_that_differs_names_the_first_difference(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When verify fails, code 1 and the first difference: where, recorded, replayed, fields."""
    from dataclasses import replace

    from fencepost_analyzer import replay
    from fencepost_analyzer.canonical import Divergence

    real = verified(open_recording(shelf / "incident"))
    parted = Divergence("job pay-1", 2, "write ok", "write failed", ("outcome",))
    monkeypatch.setattr(replay, "verify", lambda _: replace(real, equal=False, divergence=parted, digest="0" * 64))
    done = fencepost("replay", "incident")
    assert done.code == 1
    assert done.out.startswith("verify incident: not equal")
    for words in ("job pay-1, event 3", "recorded  write ok", "replayed  write failed", "differ    outcome"):
        assert words in done.out


def test_run_records_a_failure_mode() -> None:
    """`run --simulate` makes the recording under the id asked for, and names what to do next."""
    done = fencepost("run", "FM-004", "--simulate", "--id", "mine", "--recordings", "own", "--seed", "3")
    assert done.code == 0 and plain(done)
    assert done.out.startswith("recorded mine: ")
    assert "fencepost --recordings own replay mine --policy deduped" in done.out
    assert open_recording(Path("own", "mine")).manifest.seed == 3
    assert fencepost("check", "mine", "--recordings", "own").code == 1


def test_run_takes_policy_changes_and_near_misses() -> None:
    """The same faults heal under another policy, under changed fields, and do no harm as a near-miss."""
    variants = (("--policy", "deduped"), ("--set", "ack=late", "--set", "dedupe=effect_key"), ("--near-miss",))
    for number, options in enumerate(variants):
        made = fencepost("run", "FM-004", "--simulate", *options, "--id", f"v{number}", "--recordings", "own", "--json")
        assert made.json["recording"] == f"v{number}"
        assert fencepost("check", f"v{number}", "--recordings", "own").code == 0


def test_run_takes_a_scenario_file() -> None:
    """A TOML file and a postmortem's scenario.json are run like a failure mode."""
    Path("mine.toml").write_text('id = "mine"\n[[queues]]\nname = "q"\nworkload = "background"\njobs = 1\n', "utf-8")
    scenario = catalogue.failure_mode("FM-002").scenario.to_dict()
    Path("theirs.json").write_text(json.dumps({"scenario": scenario, "seed": 0, "faults": []}), "utf-8")
    assert fencepost("run", "mine.toml", "--simulate", "--recordings", "own", "--json").json["scenario"] == "mine"
    assert fencepost("run", "theirs.json", "--simulate", "--recordings", "own", "--json").json["scenario"] == "FM-002"
    for name, content in (("bad.toml", "id = ["), ("bad.json", "{"), ("odd.toml", "queues = 3"), ("odd.json", "[]")):
        Path(name).write_text(content, "utf-8")
        done = fencepost("run", name, "--simulate", "--recordings", "own")
        assert (done.code, name in done.err) == (2, True)


def test_a_file_that_is_no_scenario_by_its_name_is_not_called_a_failure_mode() -> None:
    """What is there, but has no suffix that says what it is, is named, with the suffixes."""
    Path("incident").write_text('id = "mine"\n', "utf-8")
    done = fencepost("run", "incident", "--simulate", "--recordings", "own")
    assert (done.code, plain(done), ".toml or .json" in done.err) == (2, True, True)


def test_no_recording_is_called_latest() -> None:
    """The word means the newest one, so a recording of that name could not be reached by it."""
    done = fencepost("run", "FM-003", "--simulate", "--id", "latest", "--recordings", "own")
    assert (done.code, plain(done), "choose another id" in done.err) == (2, True, True)
    assert not Path("own", "latest").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("shrink", "FM-003", "--out", "nowhere/a.toml"),
        ("regression", "FM-003", "--policy", "transactional", "--out", "nowhere/test_a.py"),
        ("record", "--report", "nowhere/r.json", "--", "touch", "begun"),
    ],
)
def test_a_folder_that_is_missing_is_named(command: tuple[str, ...]) -> None:
    """Not the file, which was to be made; and before a command is run whose report could not be written."""
    done = fencepost(*command)
    assert (done.code, plain(done), "there is no folder nowhere" in done.err) == (2, True, True)
    assert not Path("begun").exists()


def test_a_report_goes_into_a_pipe() -> None:
    """Whoever reads it gets the report, and no end of it before."""
    os.mkfifo("pipe")
    held = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)  # So that no writer waits for a reader that is gone.
    reader = subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE)
    try:
        assert fencepost("record", "--report", "pipe", "--recordings", "own", "--", "true").code == 0
        told, _ = reader.communicate(timeout=60)
    finally:
        reader.kill()
        reader.wait()
        os.close(held)
    assert json.loads(told)["gaps"] == 0


def test_what_is_there_already_is_said_with_a_way_out() -> None:
    """A file where postmortems would be written."""
    Path("taken").write_text("", "utf-8")
    made = fencepost("run", "FM-003", "--simulate", "--id", "mine", "--recordings", "own")
    assert made.code == 0
    done = fencepost("postmortem", "new", "mine", "--recordings", "own", "--postmortems", "taken")
    assert (done.code, plain(done), "choose another place" in done.err) == (2, True, True)


def test_a_run_that_does_not_end_is_said_to_have_been_ended() -> None:
    """Past at_most_ms nothing is passed off as a finished run: exit code 2, one sentence, and what happened is kept,
    on processes, where the deaths are told as ours, and in the simulator."""
    fault = 'kind = "slow"\njob = "mail-1"\nstep = "work"\nindex = 0\nat_most_ms = 600000\n'
    queue = '[[queues]]\nname = "q"\nworkload = "background"\njobs = 1\nworkers = 1\n'
    Path("slow.toml").write_text(f'id = "slow"\nat_most_ms = 700\n{queue}[[faults]]\n{fault}', "utf-8")
    for number, options in enumerate(((), ("--simulate",))):
        done = fencepost("run", "slow.toml", *options, "--id", f"cut-{number}", "--recordings", "own")
        assert (done.code, plain(done)) == (2, True)
        assert "within at_most_ms = 700 ms" in done.err and f"recording cut-{number} holds" in done.err
    shown = fencepost("show", "cut-0", "--recordings", "own")
    assert "SIGKILL, out of time" in shown.out


def test_a_run_imports_nothing_from_where_the_user_stands() -> None:
    """A module of the working directory that bears a library's name is not what runs."""
    Path("tomllib.py").write_text("raise SystemExit('imported from the working directory')\n", "utf-8")
    assert fencepost("run", "FM-003", "--near-miss", "--id", "apart", "--recordings", "own").code == 0


def test_seal_finishes_what_was_left_open() -> None:
    """An unsealed recording cannot be judged, the message names `seal`, and after it the recording can be."""
    begin(Path("own"), "open")
    refused = fencepost("check", "open", "--recordings", "own")
    assert (refused.code, "`fencepost seal own/open`" in refused.err) == (2, True)
    assert fencepost("seal", "open", "--recordings", "own").out.startswith("sealed open: no spans")
    assert fencepost("check", "open", "--recordings", "own").code == 3


def test_a_damaged_recording_is_refused(shelf: Path) -> None:
    """One flipped byte, and no command says anything about the recording but that."""
    shutil.copytree(shelf / "clean", "copy")
    path = next(Path("copy", "spans").glob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for arguments in (("check", "./copy"), ("show", "./copy"), ("replay", "./copy"), ("query", "./copy", "SELECT 1")):
        done = fencepost(*arguments)
        assert (done.code, done.out) == (2, "")
        assert "hash" in done.err


def test_a_recording_may_be_named_by_its_path(shelf: Path) -> None:
    """RUN is an id, a path, or `latest`."""
    for name in ("incident", str(shelf / "incident"), "latest"):
        assert fencepost("check", name, "--json").json["recording"] == "incident"


def test_the_catalogue_lists_what_there_is() -> None:
    """`policies`, `failure-modes` and `invariants` list names that the other commands take, and explain one."""
    assert [one["name"] for one in fencepost("policies", "--json").json["policies"]] == list(presets())
    modes = fencepost("failure-modes", "--json").json["failure_modes"]
    assert [one["id"] for one in modes] == list(catalogue.failure_modes())
    assert "lease_ms" in fencepost("policies", "safe").out
    assert "fencepost run FM-003 --policy transactional" in fencepost("failure-modes", "FM-003").out
    assert "FROM" in fencepost("invariants", "inv-001").out
    for arguments in (("policies",), ("failure-modes",), ("invariants",)):
        done = fencepost(*arguments)
        assert done.code == 0 and plain(done)


def test_main_answers_the_exit_code() -> None:
    """The console script exits with what `main` answers."""
    assert main(["policies", "--json"]) == 0


def test_gaps_of_one_kind_are_told_in_one_line() -> None:
    """Many processes with the same kind of gap take one line; a lone one is named."""
    done = asked("show", "hostile", "--jobs", "0")
    assert f"unsequenced of {len(HOSTILE)} processes, an unknown number of spans lost" in done.out


def test_what_is_not_certain_is_marked_as_such() -> None:
    """A line that may be a witness bears a question mark, and its job comes before the jobs that nobody names."""
    Path("cut.jsonl").write_text("".join(f"{line}\n" for line in doubtful_lines()), "utf-8")
    assert fencepost("import", "cut.jsonl", "--id", "cut", "--recordings", "own").code == 0
    done = fencepost("show", "cut", "--jobs", "1", "--recordings", "own")
    assert "job second" in done.out
    assert re.search(r"never answered \(ConnectionLost\) +<- INV-001\?", done.out)


def test_a_job_is_found_by_the_name_that_was_shown(here: Path) -> None:
    """The next command that `check` names works, whatever letters the job's id is made of."""
    checked = fencepost("check", "hostile")
    (line,) = [line for line in checked.out.splitlines() if "show hostile" in line]
    words = shlex.split(line.removeprefix("next:").strip())
    shown = fencepost(*words[words.index("show") :])
    assert (shown.code, shown.err) == (0, "")
    assert here.exists()


def test_a_recording_that_has_to_be_sealed_later_is_named_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told to be typed when the disk was full, and after that, works wherever the recordings are."""

    def full(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("fencepost_recorder.seal", full)
        done = fencepost("record", "--recordings", "my own", "--id", "late", "--", "true")
    assert "What was recorded is safe: `fencepost seal 'my own/late'` finishes it" in done.err
    sealed = fencepost("seal", "my own/late")
    (line,) = [line for line in sealed.out.splitlines() if "show" in line]
    assert fencepost(*shlex.split(line)[1:]).code == 0


FORKED = """
import os, signal
from opentelemetry import trace
from fencepost_recorder import install
install("shop")
for way in (lambda: os._exit(0), lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)):
    if os.fork() == 0:
        trace.get_tracer("shop").start_span("work").end()
        way()
    os.wait()
"""


def test_how_a_process_ended_is_told_as_it_was_seen() -> None:
    """A forked worker that left by _exit() closed no log, and did not die of it: `record` saw how it ended."""
    fencepost("record", "--recordings", "own", "--id", "ends", "--", sys.executable, "-c", FORKED)
    done = fencepost("show", "ends", "--recordings", "own")
    table = done.out.partition("how it ended\n")[2].splitlines()
    ends = sorted(re.split(r"  +", line, maxsplit=4)[4] for line in table)
    assert [end for end in ends if end != "closed"] == ["exited with 0", "exited with 3", "killed by SIGKILL"]
