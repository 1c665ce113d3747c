"""The demo tells one story, the same each time, and says so when it does not come out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from analyzer.lab import Done, fencepost, spawn

from fencepost_analyzer import demo, postmortem
from fencepost_analyzer.catalogue import demo_scenario, failure_mode
from fencepost_analyzer.run import run_simulated
from fencepost_recorder import Recording, open_recording
from fencepost_runtime.scenario import Scenario


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """One demo, on real processes, in a process of its own whose streams are pipes."""
    folder = tmp_path_factory.mktemp("demo")
    process = spawn("demo", env=os.environ, cwd=folder)
    out, err = process.communicate(timeout=120)
    return folder, Done(process.returncode, out, err)


def test_the_demo_comes_out_as_it_says(told: tuple[Path, Done]) -> None:
    """The demo ends with 0, and nothing is on stderr."""
    _, done = told
    assert (done.code, done.err) == (0, "")


def test_the_story_has_its_six_steps_in_order(told: tuple[Path, Done]) -> None:
    """Work, crash and pause, verdicts, verify, fork, postmortem: each step is told, in this order."""
    _, done = told
    assert re.findall(r"(?m)^(\d)  \S", done.out) == ["1", "2", "3", "4", "5", "6"]
    position = 0
    for words in (
        *("on real processes", "SIGSTOP", "SIGKILL", "recorded", "never ended"),
        *("STOPPED (SIGSTOP)", "woke up (SIGCONT)", "CRASHED (SIGKILL)"),
        *("INV-001", "INV-003", "INV-005", "INV-007", "Effect pay-2/", "Job mail-2 is lost"),
        *("equal", "under policy safe", "customer", "Healed", "001-demo", "next:"),
    ):
        position = done.out.index(words, position) + 1


def test_a_piped_demo_is_plain(told: tuple[Path, Done]) -> None:
    """No colours, no spinner, nothing but text when nobody watches."""
    _, done = told
    assert all(line.isprintable() for line in done.out.splitlines())


def test_money_is_conserved_only_in_the_replay(told: tuple[Path, Done]) -> None:
    """As recorded the customer paid for one payment twice, under the healing policy once for each."""
    _, done = told
    assert re.search(r"customer +-600 +-700 +-600\n", done.out)
    assert re.search(r"sent +4 +3 +4\n", done.out)


def test_the_demo_ends_by_naming_commands_that_work(told: tuple[Path, Done], monkeypatch: pytest.MonkeyPatch) -> None:
    """The next commands carry the real id and do what they say; the postmortem that they verify stands."""
    folder, done = told
    monkeypatch.chdir(folder)
    lines = re.findall(r"(?m)^(?:next:)? +fencepost (.*?)(?:  # .*)?$", done.out)
    assert [line.split()[0] for line in lines] == [
        *("show", "show", "check", "query", "replay", "recommend", "postmortem", "failure-modes"),
    ]
    (recording,) = (folder / "recordings").iterdir()
    assert sum(recording.name in line for line in lines) == 6
    codes = {"check": 1, "replay": 1}
    for line in lines:
        words = [part.strip('"') for part in re.findall(r'"[^"]*"|\S+', line)]
        # A minute's search is for people; a smaller bound says as much of the command.
        found = fencepost(*words, *(("--faults", "1") if words[0] == "recommend" else ()))
        assert (found.code, found.err) == (codes.get(words[0], 0), ""), line


def test_the_demo_leaves_a_postmortem_of_its_own_run(told: tuple[Path, Done]) -> None:
    """The folder that it wrote holds evidence of the run that it told."""
    folder, _ = told
    (written,) = (folder / "postmortems").iterdir()
    (recording,) = (folder / "recordings").iterdir()
    assert written.name == "001-demo"
    assert (written / "evidence" / "recorded" / recording.name / "manifest.json").is_file()


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run_processes", run_simulated)


@pytest.mark.usefixtures("simulated")
def test_the_demo_as_json_is_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """--json prints one document: recording, verdicts, both replays, the postmortem, and whether all went well."""
    monkeypatch.setattr(postmortem, "new", lambda *_, **__: Path("postmortems", "001-demo"))
    done = fencepost("demo", "--json")
    found = done.json
    assert (done.code, done.err, found["as_expected"]) == (0, "", True)
    assert found["verdicts"]["violated"] == list(demo.BREAKS)
    assert (found["verify"]["equal"], found["fork"]["heals"]) == (True, True)
    assert open_recording(Path("recordings", found["recording"])).manifest.spans == found["spans"]
    assert found["postmortem"] == "postmortems/001-demo"


@pytest.mark.usefixtures("simulated")
def test_a_demo_that_comes_out_otherwise_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """When what should break does not, the demo says that the story failed, and ends with 1."""

    def harmless(_: Scenario, recordings: Path) -> Recording:
        return run_simulated(failure_mode("FM-002").near_miss, recordings)

    monkeypatch.setattr(demo, "run_processes", harmless)
    monkeypatch.setattr(postmortem, "new", lambda *_, **__: Path("postmortems", "001-demo"))
    done = fencepost("demo")
    assert done.code == 1
    assert "This did not go as the story says" in done.out
    assert "next:" in done.out


def test_what_is_due_is_every_effect_once() -> None:
    """The accounts that the demo compares with are those of each job's effects, once."""
    assert demo_scenario().due() == {"customer": -600, "merchant": 600, "receipts": 6, "rendered": 4, "sent": 4}
