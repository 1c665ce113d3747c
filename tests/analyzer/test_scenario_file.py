"""Scenarios as files: what is written is read back, nothing in it acts, and whatever is wrong is told by its line."""

from __future__ import annotations

import json
import os
import random
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from analyzer.lab import HOSTILE, fencepost, one_line
from hypothesis import given
from hypothesis import strategies as st
from random_scenarios import random_scenario

from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.scenario_file import ScenarioFileError, dump, load
from fencepost_analyzer.scenario_lines import line_of, line_of_number, lines_of
from fencepost_runtime.operations import Effect, Job
from fencepost_runtime.policy import Policy, preset, presets
from fencepost_runtime.scenario import Fault, Point, Queue, Scenario, lacking, surplus

SEEDS = st.integers(min_value=-(2**63), max_value=2**63 - 1)
TEXTS = st.text(min_size=1, max_size=60).filter(lambda text: not any("\ud800" <= one <= "\udfff" for one in text))


def _again(tmp_path: Path, content: str, name: str = "scenario.toml") -> tuple[Scenario, int]:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    return load(path)


def _hand_made(texts: list[str], numbers: random.Random) -> Scenario:
    """A scenario of one queue whose names are these texts."""
    names = [text[:190] for text in dict.fromkeys(texts)]
    effects = tuple(Effect(name, names[0], numbers.randint(-(10**12), 10**12)) for name in names)
    jobs = tuple(Job(name, names[-1], names[0], effects[:number], number) for number, name in enumerate(names))
    faults = tuple(Fault("pause", Point(name, 1, "settle"), Point(name, 2, "settle", 0, "after"), 7) for name in names)
    return Scenario(names[0], (Queue(names[-1], jobs, Policy(name=names[0][:64], lease_ms=77)),), faults)


@given(st.integers(0, 10_000), SEEDS)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, number: int, seed: int) -> None:
    """Any scenario and seed, under any policy with any faults: the file holds exactly these."""
    scenario = _possible(random_scenario(number))
    assert _again(tmp_path_factory.getbasetemp(), dump(scenario, seed=seed, comments=["Of a property."])) == (
        scenario,
        seed,
    )


@given(st.lists(TEXTS, min_size=1, max_size=4), st.lists(st.text(), max_size=3), st.randoms(use_true_random=False))
def test_texts_are_written_as_texts_whatever_they_hold(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], comments: list[str], numbers: random.Random
) -> None:
    """Names and comments of any characters: no quote, line break or control character gets out of its place."""
    scenario = _hand_made(texts, numbers)
    content = dump(scenario, comments=comments)
    assert _again(tmp_path_factory.getbasetemp(), content) == (scenario, 0)
    assert all(line.isprintable() for line in content.split("\n"))


def test_hostile_texts_are_harmless(tmp_path: Path) -> None:
    """Escape sequences, overrides of direction, heaps of accents and TOML of its own stay inside a string."""
    hostile = [*HOSTILE, '"]\n[[faults]]\nkind = "kill"', "'''", '"""', "\\", "# no comment", "\r\n", "\u2028"]
    scenario = _hand_made(hostile, random.Random(1))
    content = dump(scenario, comments=hostile)
    assert _again(tmp_path, content) == (scenario, 0)
    assert all(line.isprintable() for line in content.split("\n"))
    assert "\u0301" * 5 not in content


def test_jobs_of_a_workload_s_shape_are_counted_and_others_listed() -> None:
    """`jobs = 2` where that gives exactly the same jobs; one that differs, and all are written one by one."""
    scenario = failure_modes()["FM-002"].scenario
    (queue,) = scenario.queues
    assert f'workload = "payments"\njobs = {len(queue.jobs)}\n' in dump(scenario)
    odd = replace(queue.jobs[-1], work_ms=5)
    content = dump(replace(scenario, queues=(replace(queue, jobs=(*queue.jobs[:-1], odd)),)))
    assert "workload" not in content
    assert content.count("[[queues.jobs]]") == len(queue.jobs)


def test_a_policy_is_a_preset_s_name_only_where_it_is_that_preset() -> None:
    """A preset with one field changed is written as what differs from the defaults, whatever it calls itself."""
    scenario = failure_modes()["FM-002"].scenario
    for name in presets():
        assert f'policy = "{name}"' in dump(scenario.with_policy(preset(name)))
    pretending = preset("safe").replace(lease_ms=77, name="safe")
    table = tomllib.loads(dump(scenario.with_policy(pretending)))["queues"][0]["policy"]
    assert Policy.from_dict(table) == pretending
    assert "max_attempts" not in table


def test_the_file_of_an_incident_reads_like_one_written_by_hand() -> None:
    """What has its default is left out, but for what people look for first."""
    point = Point("pay-1", 1, "write", 1)
    faults = (
        Fault("pause", point, Point("pay-1", 2, "settle", 0, "after")),
        Fault("db_error", Point("pay-2", 0, "enqueue")),
    )
    scenario = replace(failure_modes()["FM-002"].scenario, faults=faults)
    assert dump(scenario, seed=7, comments=["First.", "", "Second."]).endswith(
        """\
[[faults]]
kind = "pause"
job = "pay-1"
attempt = 1
step = "write"
index = 1
until = { job = "pay-1", attempt = 2, step = "settle" }
at_most_ms = 10_000

[[faults]]
kind = "db_error"
job = "pay-2"
step = "enqueue"
"""
    )
    assert dump(scenario, seed=7, comments=["First.", "", "Second."]).startswith(
        '# First.\n#\n# Second.\n\nid = "FM-002"\nseed = 7\n'
    )


@pytest.mark.parametrize("mode", failure_modes())
def test_a_failure_mode_s_own_file_and_json_are_read(mode: str, tmp_path: Path) -> None:
    """The table `scenario` of a larger file, in TOML or JSON, with the seed inside of it or beside it."""
    scenario = failure_modes()[mode].scenario
    beside = {"scenario": scenario.to_dict(), "seed": 5, "faults": []}
    inside = {"scenario": {**scenario.to_dict(), "seed": 6}}
    assert _again(tmp_path, json.dumps(beside), "a.json") == (scenario, 5)
    assert _again(tmp_path, json.dumps(inside, indent=1), "a.json") == (scenario, 6)
    assert load(Path(failure_file(mode))) == (scenario, 0)


def failure_file(mode: str) -> str:
    from importlib.resources import files

    return str(files("fencepost_analyzer").joinpath("failure_modes", f"{mode}.toml"))


def paths_of(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every path of parsed data: what a scan of its text has to find."""
    entries: Any = data.items() if isinstance(data, Mapping) else enumerate(data if isinstance(data, list) else ())
    for key, inner in entries:
        yield (*path, key)
        yield from paths_of(inner, (*path, key))


STRANGE = """\
# comment = 1
"quoted key" . 'and another'.bare-1 = 1 # "not a string
dates = 1979-05-27 07:32:00
multi = \"\"\"
[[faults]]
key = 1 \\\"\"\" still
\"\"\"
literal = '''
[x]''''
numbers = [ 1_000, # one
  +1.5e3,

  [ [], { a.b = 1, "c" = [ { d = 2 } ] } ],
]
[a.'b c'."d.e"]
x = ""
y = ''
[[a.list]]
k = 1
[[a.list.inner]]
k = true
[[a.list.inner]]
[a.list.inner.deep]
k = false
[[a.list]]
[[a.list.inner]]
k = "\\u005d]]"
"""


def test_every_key_has_its_line_however_it_is_written() -> None:
    """Dotted and quoted keys, strings over several lines, nested lists and tables: all and only what the parser saw."""
    lines = lines_of(STRANGE, ".toml")
    assert set(lines) == set(paths_of(tomllib.loads(STRANGE)))
    assert lines["quoted key", "and another", "bare-1"] == 2
    assert (lines["literal",], lines["numbers", 2], lines["numbers", 2, 1, "c", 0, "d"]) == (8, 13, 13)
    assert (lines["a", "b c", "d.e", "y"], lines["a", "list", 0, "inner", 1, "deep", "k"]) == (17, 24)
    assert (lines["a", "list", 1], lines["a", "list", 1, "inner", 0, "k"]) == (25, 27)


@given(st.integers(0, 10_000))
def test_the_lines_of_any_scenario_are_found(number: int) -> None:
    """In TOML and in JSON, indented or not, everything has a line, and the line holds its key."""
    scenario = random_scenario(number)
    content = dump(scenario, comments=["id = 7"])
    found = lines_of(content, ".toml")
    assert set(found) == set(paths_of(tomllib.loads(content)))
    rows = content.split("\n")
    assert all(str(path[-1]) in rows[line - 1] for path, line in found.items() if isinstance(path[-1], str))
    for indent in (None, 2):
        as_json = json.dumps(scenario.to_dict(), indent=indent)
        assert set(lines_of(as_json, ".json")) == set(paths_of(json.loads(as_json)))


def test_of_a_key_that_json_has_twice_the_last_one_counts() -> None:
    """As for the parser, which keeps the last."""
    assert lines_of('{"a": 1,\n"a": 2}', ".json") == {("a",): 2}


def test_what_cannot_be_scanned_has_no_line() -> None:
    """Rather than a wrong one; around what was found there is still a line."""
    assert lines_of("{" * 100_000, ".json") == {}
    assert line_of({}, ("faults", 2)) == (None, ())
    assert line_of({("faults", 2): 9}, ("faults", 2, "step")) == (9, ("faults", 2))


WRONG = """\
# A fault with "[[faults]]" in its comment.
id = "double-charge"
seed = 3

[[queues]]
name = "payments"
workload = "payments"
jobs = 3
workers = 2

[queues.policy]
ack = "late"
lease_ms = 1_000

[[queues]]
name = "mail"
policy = { name = "mine", ack = "early", fencing = true }
[[queues.jobs]]
id = "mail-1"
effects = [
    { key = "render", amount = 1 },
    { key = "send", amount = 1 },
]
[[queues.jobs]]
id = "mail-2"
effects = []

[[faults]]
kind = "kill"
job = "pay-1"
attempt = 1
step = "write"

[[faults]]
kind = "pause"
job = "pay-1"
attempt = 1
step = "write"
index = 1
until = { job = "pay-1", attempt = 2, step = "settle" }
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('id = "double-charge"', 'idd = "double-charge"', 2, "no field 'idd': did you mean id?"),
        ("seed = 3", "seed = 3.5", 3, "seed takes a whole number of 64 bits, not 3.5"),
        ("seed = 3", "sed = 3", 3, "no field 'sed': did you mean seed?"),
        ("workers = 2", "workers = 0", 9, "workers takes a whole number from 1 to 64, not 0"),
        ('workload = "payments"', 'workload = "payment"', 7, "no workload 'payment': did you mean payments?"),
        ("lease_ms = 1_000", "lease = 1_000", 13, "no field 'lease': did you mean lease_ms?"),
        ("lease_ms = 1_000", "lease_ms = 1", 13, "lease_ms takes a whole number from 10"),
        ("fencing = true", "fencing = 1", 17, "fencing takes true or false, not 1"),
        ('id = "mail-2"', 'id = "mail-1"', 25, "2 jobs called 'mail-1'"),
        ('id = "mail-2"', 'id = "pay-2"', 25, "2 jobs called 'pay-2'"),
        ('key = "send"', 'key = "render"', 22, "2 effects called 'render'"),
        ('key = "send", amount = 1', 'key = "send", amout = 1', 22, "no field 'amout': did you mean amount?"),
        ('key = "send", ', "", 22, "needs a key"),
        ("effects = []", "effects = 5", 26, "effects is a list of tables, not 5"),
        ('kind = "kill"', 'kind = "kil"', 29, "no fault 'kil': did you mean kill?"),
        ('kind = "pause"', 'kind = "slow"', 38, "A slow fault strikes the work step, not write"),
        ('step = "write"\nindex', 'step = "writ"\nindex', 38, "no step 'writ': did you mean write?"),
        ('step = "write"\nindex', "index", 34, "no step None"),
        ("index = 1", "index = 3", 39, "has no write step 3: an attempt has 3, counted from 0"),
        ('step = "settle"', 'step = "work"', 40, "cannot last until a work step"),
        ('until = { job = "pay-1"', 'until = { job = "pay-9"', 40, "strikes job 'pay-9', which is not there"),
        ('name = "mail"', 'name = "mail', 16, "cannot be read as TOML"),
        ('step = "write"\nindex = 1', 'step = "apply"', 38, "can never strike: under policy custom the writes have no"),
        ('attempt = 1\nstep = "write"', 'attempt = 9\nstep = "write"', 31, "there is no attempt 9"),
        ('step = "settle"', 'step = "renew"', 40, "can never end so: under policy custom there is no renew step"),
    ],
)
def test_bad_input_is_told_by_its_line(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    """A typo, an unknown step, an impossible fault, an unknown field: one sentence that begins with file and line."""
    assert old in WRONG
    path = tmp_path / "wrong.toml"
    path.write_text(WRONG.replace(old, new, 1), "utf-8")
    done = fencepost("run", path, "--simulate", "--recordings", tmp_path / "own")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"fencepost: {path}:{line}: ") and one_line(done.err)
    assert words in done.err


def test_a_job_without_effects_has_no_transaction_to_strike(tmp_path: Path) -> None:
    """Nobody could tell that it was struck. Where the acknowledgement is in it there is one."""
    content = WRONG.replace('ack = "early", fencing = true', 'writes = "atomic", ack = "late"')
    content = content.replace(
        'job = "pay-1"\nattempt = 1\nstep = "write"', 'job = "mail-2"\nattempt = 1\nstep = "apply"', 1
    )
    with pytest.raises(
        ScenarioFileError, match=r"s\.toml:32: .* never strike: .* a job without effects has no transac"
    ):
        _again(tmp_path, content, "s.toml")
    assert _again(tmp_path, content.replace('ack = "late" }', 'ack = "with_writes" }'), "s.toml")


def test_json_is_told_by_its_line_too(tmp_path: Path) -> None:
    """Also where the point is a table of its own, and the scenario one of a larger file."""
    data = {"title": "x", "scenario": failure_modes()["FM-002"].scenario.to_dict()}
    data["scenario"]["faults"][0]["at"]["step"] = "writ"
    content = json.dumps(data, indent=2)
    line = next(number for number, row in enumerate(content.split("\n"), 1) if '"writ"' in row)
    with pytest.raises(ScenarioFileError, match=rf"s\.json:{line}: There is no step 'writ'"):
        _again(tmp_path, content, "s.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "s.toml: A scenario needs at least one [[queues]] table"),
        ("scenario = 5", "s.toml:1: A scenario is a table of id, seed, queues"),
        ('id = "a"\nqueues = []', "s.toml:2: A scenario needs at least one [[queues]] table"),
        ("id = [", "cannot be read as TOML"),
        ('id = "a"\nid = "b"', "s.toml:2: this cannot be read as TOML"),
    ],
)
def test_what_is_missing_altogether_has_no_line(tmp_path: Path, content: str, words: str) -> None:
    """Then the sentence names the table; a line that has nothing to do with it would mislead."""
    with pytest.raises(ScenarioFileError) as caught:
        _again(tmp_path, content, "s.toml")
    assert words in str(caught.value)


def test_what_is_no_text_and_what_is_too_large_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are told by their line; a file of many megabytes is not read to its end."""
    path = tmp_path / "odd.toml"
    path.write_bytes(b'id = "a"\nname = "\xff"\n')
    with pytest.raises(ScenarioFileError, match=r"odd\.toml:2: this is not text in UTF-8"):
        load(path)
    path.write_bytes(b"#" * 5_000_001)
    with pytest.raises(ScenarioFileError, match="larger than"):
        load(path)
    path.with_suffix(".json").write_text("[" * 100_000)
    with pytest.raises(ScenarioFileError, match="nested"):
        load(path.with_suffix(".json"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"id": "a",\n "id": "b"}', "s.json:2: the key 'id' is given twice"),
        ('{"faults": [{"at": {"attempt": 1}, "attempt": 1,\n "\\u0061ttempt"\n: 2}]}', "s.json:2: the key 'attempt'"),
        ('{"id": "a", "faults": [{"id": "\\"}{"}, {"id": {"id": 1}}],\n"id":1}', "s.json:2: the key 'id'"),
    ],
)
def test_no_key_of_json_is_taken_by_chance(tmp_path: Path, content: str, words: str) -> None:
    """One that an object has twice, however it is written, is refused as TOML refuses it: exit code 2, its line."""
    path = tmp_path / "s.json"
    path.write_text(content)
    done = fencepost("run", path, "--simulate", "--recordings", tmp_path / "own")
    assert done.code == 2 and one_line(done.err)
    assert words in done.err


@pytest.mark.parametrize(
    ("name", "before", "number"),
    [
        ("s.toml", 'id = "a"\nseed = ', "1" * 5_000),
        ("s.toml", 'id = "a"\nseed = ', "-" + "1_" * 5_000 + "1"),
        ("s.toml", 'id = "a"\nseed = ', "0x" + "f" * 5_000 + WRONG.partition("seed = 3")[2]),
        ("s.json", '{"id": "a",\n"seed": ', "1" * 5_000 + "}"),
    ],
)
def test_a_number_without_end_is_told_by_its_line(tmp_path: Path, name: str, before: str, number: str) -> None:
    """Decimal or not: one that Python would not read, or could not show, is a plain sentence."""
    path = tmp_path / name
    path.write_text(before + number)
    done = fencepost("run", path, "--simulate", "--recordings", tmp_path / "own")
    assert done.code == 2 and one_line(done.err)
    assert done.err.startswith(f"fencepost: {path}:2: this number has 1,000 digits or more")


def test_digits_that_are_no_number_are_left_alone() -> None:
    """In a text, a comment, a key: nothing of these is a number."""
    digits = "1" * 5_000
    assert line_of_number(f"a = \"{digits}\" # {digits}\n{digits} = '''\n{digits}'''", ".toml", 1_000) is None
    assert line_of_number(f'{{"{digits}": "{digits}"}}', ".json", 1_000) is None


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Only a file is read, or a link to one; what it is called stays as it was given."""
    path = tmp_path / "pipe.toml"
    os.mkfifo(path)
    done = fencepost("run", path, "--simulate", "--recordings", tmp_path / "own")
    assert done.code == 2 and one_line(done.err)
    assert f"{path} is a pipe or a device" in done.err
    link = tmp_path / "link.toml"
    link.symlink_to(tmp_path / "file.toml")
    with pytest.raises(FileNotFoundError) as caught:
        load(link)
    assert caught.value.filename == str(link)
    (tmp_path / "file.toml").write_text(dump(failure_modes()["FM-002"].scenario))
    assert load(link) == (failure_modes()["FM-002"].scenario, 0)


def _possible(scenario: Scenario) -> Scenario:
    """Without the faults that its policies have no place for: these are refused."""
    jobs = {job.id: (job, queue.policy) for queue in scenario.queues for job in queue.jobs}

    def never(point: Point | None) -> bool:
        if point is None:
            return False
        job, policy = jobs[point.job]
        return bool(lacking(point, policy, job) or surplus(point, policy))

    kept = tuple(fault for fault in scenario.faults if not never(fault.at) and not never(fault.until))
    return replace(scenario, faults=kept)
