"""Postmortems: written from a recording alone, added to, and found out when somebody changes them."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from analyzer.lab import HOSTILE, bytes_of, edit, fallen, fencepost, flip

from fencepost_analyzer import check, mapping, postmortem
from fencepost_analyzer.case import open_case
from fencepost_analyzer.postmortem import page
from fencepost_analyzer.postmortem.folder import INDEX, load_index, making
from fencepost_recorder import Recording, open_recording
from fencepost_runtime.policy import preset

ROOT = Path(__file__).resolve().parents[2]


def test_the_template_is_shipped_as_it_is() -> None:
    """postmortems/000-template.md is the very page that `new` begins with."""
    assert (ROOT / "postmortems" / "000-template.md").read_text("utf-8") == page.template()


def test_a_folder_holds_page_and_evidence(written: Path) -> None:
    """The folder has its number, the page, the recording and everything that was derived from it."""
    assert written.name == "001-charged-twice"
    assert {
        *("postmortem.md", INDEX, "evidence/verdicts.json", "evidence/replay.json", "evidence/scenario.json"),
        *("evidence/timeline.txt", "evidence/events.csv", "evidence/queries/INV-001.sql"),
        *("evidence/queries/INV-001.json", "evidence/recorded/incident/manifest.json"),
    } <= bytes_of(written).keys()


def test_the_page_tells_the_incident(written: Path) -> None:
    """Title, date, verdicts, witnesses, timeline, replay, recovery and commands are there, and blanks for people."""
    text = (written / "postmortem.md").read_text("utf-8")
    for words in (
        "# Charged twice\n\nPostmortem 001, written 2026-01-02.",
        "**violated**: INV-001, INV-003, INV-005, INV-007",
        "| INV-003 | no stale write | **violated** | 2 |",
        "Effect pay-2/debit of job pay-2 was applied 2 times",
        "STOPPED (SIGSTOP)",
        "| `customer` | -600 | **-700** (-100) | -600 |",
        "**verify: equal.**",
        "**fork under `safe`: heals.**",
        "| payments | `fencing` | `false` | `true` | RS-002 fencing token |",
        "fencepost check evidence/recorded/incident",
        "fencepost replay evidence/recorded/incident --policy safe",
    ):
        assert words in text
    assert "{{" not in text
    assert text.count(page.BLANK) == postmortem.blanks(written) == page.template().count(page.BLANK)


def test_the_same_recording_gives_the_same_folder(shelf: Path, tmp_path: Path) -> None:
    """But for the date, every byte follows from the recording."""
    with open_case(open_recording(shelf / "clean")) as case:
        first, second = (
            postmortem.new(case, postmortems=tmp_path / name, replays=[], today="2026-01-02")
            for name in ("first", "second")
        )
    assert bytes_of(first) == bytes_of(second)


@pytest.mark.usefixtures("derived_once")
def test_fresh_evidence_stands(written: Path) -> None:
    """Right after it was written everything stands: files, sections, verdicts, queries and replays."""
    checks = postmortem.verify(written)
    assert [one for one in checks if not one.stands] == []
    kinds = {one.name.split()[0] for one in checks}
    assert kinds == {"file", "section", "recording", "verdict", "query", "replay", "derived"}


def test_every_command_of_the_page_works(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page says to type does what the page says, from the folder itself."""
    monkeypatch.chdir(written)
    text = Path("postmortem.md").read_text("utf-8")
    block = page.extract(text)["again"]
    commands = [line for line in block.splitlines() if line.startswith("fencepost ")]
    assert len(commands) >= 9
    codes = {"check": 1, "show": 0, "query": 0, "replay": 0}
    # One command of each kind; that everything stands is another test.
    kinds = {line.split()[1]: line for line in commands if line.split()[1] != "postmortem"}
    for line in kinds.values():
        words = line.split()[1:]
        if words[0] == "run":
            assert json.loads(Path(words[1]).read_text("utf-8"))["scenario"]["id"] == "demo"
            continue
        done = fencepost(*words)
        assert (done.code, done.err) == (codes[words[0]], ""), line


@pytest.mark.usefixtures("derived_once")
def test_people_may_write_everywhere_else(copy: Path) -> None:
    """Text outside of the generated sections is people's own: the evidence stands whatever they write."""
    path = copy / "postmortem.md"
    text = path.read_text("utf-8")
    written = text.replace(page.BLANK, "Done").replace("# Charged twice", "# Something else\r\n\r\nBy us. <b>Ä</b>")
    path.write_bytes((written + "\n\nThe end without a line break").encode())
    assert fallen(copy) == []
    assert postmortem.blanks(copy) == 0


@pytest.mark.usefixtures("derived_once")
def test_attaching_adds_evidence_and_keeps_what_people_wrote(copy: Path, shelf: Path) -> None:
    """A query with its answer, a file and a recording are added, listed and verified; other text stays to the byte."""
    edit(copy / "postmortem.md", "> **To fill in:** what happened", "It was a dark night, and")
    before = (copy / "postmortem.md").read_text("utf-8")
    source = copy.parent / "a graph <1>.png"
    source.write_bytes(b"\x89PNG")
    sql = "SELECT event, count(*) AS n FROM events GROUP BY ALL"
    assert fencepost("postmortem", "attach", copy, "--query", sql, "--name", "per event").code == 0
    assert fencepost("postmortem", "attach", copy, "--file", source).code == 0
    assert fencepost("postmortem", "attach", copy, "--run", "clean", "--recordings", shelf).code == 0
    after = (copy / "postmortem.md").read_text("utf-8")
    kept, grown = page.extract(before), page.extract(after)
    assert {name for name in kept if kept[name] != grown[name]} == {"attachments", "evidence"}
    assert outside(before) == outside(after)
    for words in ("01-per-event.sql", "02-a-graph-1-.png", "recording `clean`, judged [holds]"):
        assert words in grown["attachments"]
    checks = postmortem.verify(copy)
    assert [one for one in checks if not one.stands] == []
    assert {"query per-event", "recording clean"} <= {one.name for one in checks}


def outside(text: str) -> str:
    """The page without what is generated."""
    return re.sub(r"(?s)(<!-- fencepost:begin (\w+) -->\n).*?(<!-- fencepost:end \2 -->)", r"\1\3", text)


@pytest.mark.usefixtures("derived_once")
def test_attached_evidence_is_verified_like_the_rest(copy: Path, shelf: Path) -> None:
    """An attached answer or recording that was changed afterwards does not stand."""
    postmortem.attach_query(copy, "SELECT count(*) AS n FROM spans", "spans")
    postmortem.attach_recording(copy, open_recording(shelf / "clean"))
    edit(copy / "evidence/attached/01-spans.json", "83", "84")
    flip(copy / "evidence/recorded/clean/spans/part-00000.parquet")
    assert {"query spans", "recording clean"} <= set(fallen(copy))


def test_a_failed_attachment_changes_nothing(copy: Path, shelf: Path) -> None:
    """What cannot be attached leaves the folder as it was, and says why."""
    before = bytes_of(copy)
    for arguments in (
        ("--query", "SELEC"),
        ("--file", str(copy.parent / "missing.png")),
        ("--file", str(copy.parent)),
        ("--run", "incident"),
        ("--query", "SELECT 1", "--file", "x"),
        ("--query", "SELECT now()"),
        (),
    ):
        done = fencepost("postmortem", "attach", copy, *arguments, "--recordings", shelf)
        assert (done.code, done.out) == (2, "")
    assert bytes_of(copy) == before


def test_attach_refuses_a_page_that_lost_its_sections(copy: Path) -> None:
    """Where the page has no place for it, the message says which lines to put back."""
    edit(copy / "postmortem.md", "<!-- fencepost:begin attachments -->", "")
    edit(copy / "postmortem.md", "<!-- fencepost:end attachments -->", "")
    before = bytes_of(copy)
    done = fencepost("postmortem", "attach", copy, "--query", "SELECT 1 AS one")
    assert done.code == 2 and "<!-- fencepost:begin attachments -->" in done.err
    assert bytes_of(copy) == before


@pytest.fixture(scope="module")
def foreign(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The postmortem of an import in which every name is hostile, the title too."""
    folder = tmp_path_factory.mktemp("foreign")
    recording = open_recording(shelf / "hostile")
    with open_case(recording) as case:
        return postmortem.new(case, postmortems=folder, title=HOSTILE[7], replays=postmortem.usual(case))


def test_a_recording_that_cannot_be_replayed_gets_a_postmortem_too(foreign: Path) -> None:
    """An import is judged and queried, its evidence stands, and the page says why it was not replayed."""
    text = (foreign / "postmortem.md").read_text("utf-8")
    assert "Not replayed: Recording hostile does not say which scenario it is of" in text
    assert fallen(foreign) == []


def test_hostile_names_do_nothing_on_a_page(foreign: Path) -> None:
    """Outside of code, every link of a page leads into its evidence and no HTML is left but our markers."""
    text = (foreign / "postmortem.md").read_text("utf-8")
    assert all(line.isprintable() for line in text.splitlines())
    assert set(page.extract(text)) == set(page.extract(page.template()))
    prose = re.sub(r"(?s)(`{3,})text\n.*?\n\1\n", "", text)
    prose = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", prose)
    prose = re.sub(r"\\.", "", prose)
    assert set(re.findall(r"<[^ >]*", prose)) == {"<!--"}
    assert all(link.startswith("evidence/") for link in re.findall(r"\]\(([^)]*)\)", prose))


def test_own_invariants_travel_with_the_postmortem(shelf: Path, tmp_path: Path) -> None:
    """The user's own SQL is copied into the evidence, and verify judges by it."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "shop.sql").write_text(
        "-- id: SHOP-1\n-- title: nobody retries\n-- severity: low\n-- principle: P5\n-- polarity: +\n-- needs: lease\n"
        "-- claim: No job is given back.\nSELECT schedule, job_id, \"at\", [span_id] AS span_ids, 'Given back.' "
        "AS sentence FROM events WHERE event = 'retry' OR event = 'reclaim'\n",
        "utf-8",
    )
    with open_case(open_recording(shelf / "clean"), invariants=[own]) as case:
        folder = postmortem.new(case, postmortems=tmp_path, replays=[])
    shutil.rmtree(own)
    checks = {one.name: one for one in postmortem.verify(folder)}
    assert checks["verdict SHOP-1"].detail == "violated, 1 case as before"
    assert all(one.stands for one in checks.values())


def test_a_postmortem_does_not_say_that_a_policy_heals_a_promise_of_the_user_s_that_it_breaks(
    shelf: Path, tmp_path: Path, own_promise: Path
) -> None:
    """Forks are judged by the user's own invariants, too, and the page's commands name them."""
    done = fencepost(
        *("postmortem", "new", "incident", "--policy", "safe", "--invariants", own_promise),
        *("--recordings", shelf, "--postmortems", tmp_path),
    )
    assert done.code == 0
    text = (tmp_path / "001-demo" / "postmortem.md").read_text("utf-8")
    assert "**fork under `safe`: does not heal.**" in text
    assert "| SHOP-1 | violated | violated |" in text
    assert "No replay has shown a policy that heals this." in text
    assert "fencepost check evidence/recorded/incident --invariants evidence/invariants" in text
    assert "fencepost replay evidence/recorded/incident --policy safe --invariants evidence/invariants" in text


def test_a_postmortem_maps_its_recording_once(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts, replays, answers and timeline come from one opening of the recording."""
    mapped = []
    monkeypatch.setattr(check, "map_spans", lambda *given: mapped.append(given) or mapping.map_spans(*given))
    where = ("--recordings", shelf, "--postmortems", tmp_path)
    assert fencepost("postmortem", "new", "clean", *where).code == 0
    assert len(mapped) == 1


def test_a_failed_new_leaves_nothing(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong on the way, or whoever presses Ctrl-C: no folder, no number taken, nothing hidden."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "fill", interrupted)
    with open_case(open_recording(shelf / "clean")) as case, pytest.raises(KeyboardInterrupt):
        postmortem.new(case, postmortems=tmp_path, replays=[])
    assert list(tmp_path.iterdir()) == []


def test_numbers_go_up_and_are_never_taken_twice(tmp_path: Path) -> None:
    """Each new folder takes the next number, also when several are made at once; the template is number 0."""
    (tmp_path / "000-template.md").write_text("")
    (tmp_path / "041-old").mkdir()

    def make(_: int) -> None:
        with making(tmp_path, "An Incident!"):
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(8)))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["000-template.md", "041-old", *(f"{number:03d}-an-incident" for number in range(42, 50))]


@pytest.mark.parametrize("name", ["", "…", "../..", "/"])
def test_a_name_that_makes_no_folder_is_refused(name: str, shelf: Path, tmp_path: Path) -> None:
    """A name without letters or digits is refused with the way out; no name leaves the folder of postmortems."""
    done = fencepost(
        "postmortem", "new", "clean", "--name", name or "-", "--recordings", shelf, "--postmortems", tmp_path
    )
    assert done.code == 2 and "--name" in done.err
    assert list(tmp_path.iterdir()) == []


def test_the_policies_are_those_that_heal_or_those_asked_for(shelf: Path, incident: Recording) -> None:
    """Without --policy a failure mode is forked under what heals it, anything else under `safe`."""
    with open_case(open_recording(shelf / "clean")) as case:
        (_, usual) = postmortem.usual(case)
    assert usual["policy"]["name"] == "safe"  # The near-miss is no failure mode.
    with open_case(incident) as case:
        (_, demo) = postmortem.usual(case)
        chosen = postmortem.usual(case, [preset("fenced"), preset("deduped")])
    assert demo["policy"]["name"] == "safe"
    assert [spec["policy"]["name"] for spec in chosen[1:]] == ["fenced", "deduped"]


@pytest.mark.usefixtures("derived_once")
def test_verify_prints_what_stands_and_what_does_not(copy: Path) -> None:
    """The result is the first line; each check is named, and the blanks that are left are counted."""
    good = fencepost("postmortem", "verify", copy)
    assert good.out.splitlines()[0] == f"{copy}: stands"
    assert "files unchanged" in good.out and "7 parts of the page still to fill in" in good.out
    edit(copy / "evidence/timeline.txt", "STOPPED", "worked")
    bad = fencepost("postmortem", "verify", copy)
    assert bad.code == 1 and bad.out.splitlines()[0] == f"{copy}: does not stand"
    assert "FAIL file evidence/timeline.txt: changed" in bad.out
    document = fencepost("postmortem", "verify", copy, "--json")
    assert document.json["stands"] is False


def test_an_index_is_read_as_it_was_written(written: Path) -> None:
    """evidence.json round-trips through its reader to the byte."""
    assert load_index(written).to_bytes() == (written / INDEX).read_bytes()


def test_new_names_what_to_do_next(shelf: Path, tmp_path: Path) -> None:
    """`postmortem new` says where the folder is, how much is left to write, and how to verify it."""
    done = fencepost("postmortem", "new", "clean", "--recordings", shelf, "--postmortems", tmp_path)
    assert done.code == 0
    assert re.match(r"wrote .*/001-demo|wrote .*/001-", done.out)
    assert "parts for you to fill in" in done.out and "postmortem verify" in done.out


@pytest.mark.usefixtures("derived_once")
def test_renewing_rewords_what_is_generated_and_keeps_the_rest(copy: Path) -> None:
    """What another version generated is written again as this one says it; people's text and attachments stay."""
    postmortem.attach_query(copy, "SELECT 1 AS one", "one")
    edit(copy / "postmortem.md", "> **To fill in:** what happened", "It was a dark night, and")
    edit(copy / "postmortem.md", "| promise |", "| pledge |")
    edit(copy / "evidence/timeline.txt", "STOPPED", "HALTED")
    before = (copy / "postmortem.md").read_text("utf-8")
    postmortem.renew(copy)
    after = (copy / "postmortem.md").read_text("utf-8")
    assert fallen(copy) == []
    assert outside(before) == outside(after)
    assert "| promise |" in after and "01-one.sql" in after


EXAMPLE = ROOT / "postmortems" / "001-demo"
RENEW = (
    f"python -c \"import pathlib; from fencepost_analyzer import postmortem as p; p.renew(pathlib.Path('{EXAMPLE}'))\""
)


def test_the_example_stands() -> None:
    """The demo's incident, kept with the source as the first postmortem, is finished and all its evidence stands."""
    assert postmortem.blanks(EXAMPLE) == 0
    assert fallen(EXAMPLE) == [], f"if only words changed, this writes them again: {RENEW}"
