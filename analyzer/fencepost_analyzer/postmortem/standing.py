"""`postmortem verify`: does the evidence still stand? Hashes, verdicts, answers and replays, all of them again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fencepost_analyzer import check as checking
from fencepost_analyzer import text
from fencepost_analyzer.case import Case
from fencepost_analyzer.errors import AnalyzerError
from fencepost_analyzer.postmortem import page
from fencepost_analyzer.postmortem.evidence import Answer, Derived, ask, derive
from fencepost_analyzer.postmortem.folder import (
    INDEX,
    MAX_TEXT_BYTES,
    PAGE,
    Index,
    PostmortemError,
    files_below,
    load_index,
    read,
    recording_path,
    sha256,
)
from fencepost_analyzer.postmortem.sections import of_index, of_recording
from fencepost_analyzer.postmortem.writing import case_again
from fencepost_analyzer.render import plain_json
from fencepost_analyzer.replay import Replay
from fencepost_analyzer.verdicts import Report
from fencepost_analyzer.version import __version__
from fencepost_recorder import RecorderError, open_recording
from fencepost_runtime.errors import RuntimeFault


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at again. `detail` is a sentence of raw text."""

    name: str
    stands: bool
    detail: str

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "stands": self.stands, "detail": self.detail}


def verify(folder: Path) -> list[Check]:
    """Looks at everything again; the postmortem stands if every check does.

    Raises PostmortemError when the folder is no postmortem, or has no readable index."""
    index = load_index(folder)
    return [*_hashes(folder, index), *_sections(folder, index), *_again(folder, index)]


def written_by(folder: Path) -> str:
    """The version of fencepost that wrote the evidence. Raises as `verify` does."""
    return load_index(folder).tool_version


def blanks(folder: Path) -> int:
    """How many parts of the page people still have to write; none of a page that is not there."""
    try:
        return _page(folder).count(page.BLANK)
    except PostmortemError:
        return 0


def _hashes(folder: Path, index: Index) -> Iterator[Check]:
    """Every file that the index names, byte for byte, and no other."""
    for path, digest in sorted(index.files.items()):
        try:
            found = sha256(read(folder, path))
        except PostmortemError as error:
            yield Check(f"file {path}", False, str(error))
            continue
        same = found == digest
        yield Check(f"file {path}", same, "unchanged" if same else "changed: its hash is not the one in evidence.json")
    for path in files_below(folder):
        if path not in index.files:
            yield Check(f"file {path}", False, "not part of the evidence: move it away, or use `postmortem attach`")


def _again(folder: Path, index: Index) -> Iterator[Check]:
    """Judge, ask and replay again, from the copied recording alone."""
    try:
        recording = open_recording(folder / recording_path(index.recording))
    except RecorderError as error:
        yield Check("recording", False, f"nothing can be judged again: {error}")
        return
    if recording.manifest.sha256 != index.recording_sha256 or recording.id != index.recording:
        yield Check("recording", False, f"this is another recording than the one that {INDEX} names")
        return
    yield Check("recording", True, f"{recording.id}: every byte is what was sealed")
    with ExitStack() as stack:
        try:
            case = stack.enter_context(case_again(folder, index, recording))
            derived = derive(case, index.replays)
        except (AnalyzerError, RuntimeFault) as error:
            yield Check("evidence", False, f"it cannot be derived again: {error}")
            return
        yield from _guarded(
            "verdicts", lambda: _verdicts(_load(folder, "evidence/verdicts.json"), derived.report, index)
        )
        queries = [(name, f"evidence/queries/{name}") for name in index.queries]
        queries += [(str(one["name"]), str(one["sql"])[:-4]) for one in index.attachments if one.get("kind") == "query"]
        for name, base in queries:
            again = partial(_answer, derived, case)
            yield from _guarded(f"query {name}", partial(_query, folder, name, base, again))
    yield from _guarded("replays", lambda: _replays(folder, index, derived))
    for about in index.attachments:
        if about.get("kind") == "recording":
            yield from _guarded(f"recording {about['recording']}", partial(_other, folder, about, index))
    if index.tool_version == __version__:
        yield from _derived_files(folder, index, derived)
        yield from _guarded(PAGE, lambda: _derived_sections(folder, index, derived))


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """What cannot even be looked at does not stand."""
    try:
        yield from look()
    except (AnalyzerError, RecorderError, RuntimeFault) as error:
        yield Check(name, False, str(error))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        yield Check(name, False, "what was written down cannot be read any more")


def _verdicts(stored: Any, report: Report, index: Index) -> Iterator[Check]:
    judged = plain_json(report.to_dict())
    if index.tool_version != __version__:
        # Another version may tell the same in other words.
        for witness in (one for said in (stored, judged) for found in said["findings"] for one in found["witnesses"]):
            del witness["sentence"]
    now = {one["id"]: one for one in judged["findings"]}
    before = {one["id"]: one for one in stored["findings"]}
    for name, one in before.items():
        yield Check(f"verdict {name}", *_same_finding(one, now.get(name)))
    for key in ("verdict", "violated", "events", "jobs", "gaps"):
        # A newer fencepost judges more, and may come to more; by the same invariants it must come to the same.
        if before.keys() == now.keys() and stored[key] != judged[key]:
            yield Check(f"verdicts.json: {key}", False, f"written down is {stored[key]}, it is {judged[key]}")


def _same_finding(stored: Mapping[str, Any], now: Mapping[str, Any] | None) -> tuple[bool, str]:
    if now is None:
        return False, "this fencepost does not know the invariant any more"
    if stored["verdict"] != now["verdict"]:
        return False, f"written down is {stored['verdict']}, judged again it is {now['verdict']}"
    for key in ("violations", "unknowns", "witnesses"):
        if stored[key] != now[key]:
            return False, f"{stored['verdict']} as before, but with other {key}"
    cases = now["violations"] + now["unknowns"]
    return True, now["verdict"] + (f", {text.counted(cases, 'case')} as before" if cases else "")


def _query(folder: Path, name: str, base: str, again: Callable[[bytes], Answer]) -> Iterator[Check]:
    answer = again(read(folder, f"{base}.sql", MAX_TEXT_BYTES))
    same = answer.to_bytes() == read(folder, f"{base}.json", MAX_TEXT_BYTES)
    rows = "more rows than are kept" if answer.cut else text.counted(len(answer.rows), "row")
    yield Check(f"query {name}", same, f"{rows} as before" if same else f"it answers otherwise now: {rows}")


def _answer(derived: Derived, case: Case, sql: bytes) -> Answer:
    """What the query as it was written down answers; an invariant's was just asked, if it is still the same."""
    for path, data in derived.files.items():
        if path.startswith("evidence/queries/") and data == sql:
            return derived.answers[Path(path).stem]
    return ask(case.recording, sql.decode("utf-8", "replace"), mappings=case.mappings)


def _replays(folder: Path, index: Index, derived: Derived) -> Iterator[Check]:
    stored = _load(folder, "evidence/replay.json")
    if index.not_replayed != derived.not_replayed:
        yield Check("replays", False, derived.not_replayed or "what could not be replayed can be now")
        return
    for before, now in zip(stored["replays"], derived.replays, strict=True):
        yield Check(*_same_replay(before, now))


def _same_replay(stored: Mapping[str, Any], now: Replay) -> tuple[str, bool, str]:
    name = now.mode if now.mode == "verify" else f"fork under {text.listed(sorted(set(now.policies.values())))}"
    if stored["digest"] != now.digest or stored["recorded_digest"] != now.recorded_digest:
        return f"replay {name}", False, "it comes to another history than the one written down"
    if stored["equal"] != now.equal or stored["after"]["violated"] != list(now.after.violated):
        return f"replay {name}", False, "it comes to other verdicts than those written down"
    result = ("equal" if now.equal else "not equal") if now.mode == "verify" else _healing(now)
    return f"replay {name}", True, f"{result}, digest {now.digest[:16]} as before"


def _healing(now: Replay) -> str:
    return "heals" if now.heals else "does not heal"


def _other(folder: Path, about: Mapping[str, Any], index: Index) -> Iterator[Check]:
    name = f"recording {about['recording']}"
    report = checking.check(open_recording(folder / recording_path(about["recording"])))
    checks = list(_verdicts(_load(folder, about["verdicts"]), report, index))
    fallen = [one for one in checks if not one.stands]
    detail = f"{fallen[0].name}: {fallen[0].detail}" if fallen else f"{report.verdict} as before"
    yield Check(name, not fallen, detail)


def _derived_files(folder: Path, index: Index, derived: Derived) -> Iterator[Check]:
    """By the version that wrote them, the files that nothing else checks come out the same to the byte."""
    for path in ("evidence/timeline.txt", "evidence/events.csv", "evidence/scenario.json"):
        if path in derived.files or path in index.files:
            yield from _guarded(f"derived {path}", partial(_same_bytes, folder, path, derived))


def _same_bytes(folder: Path, path: str, derived: Derived) -> Iterator[Check]:
    same = derived.files.get(path) == read(folder, path)
    detail = "derived again, it is the same" if same else "derived again, it comes out otherwise"
    yield Check(f"derived {path}", same, detail)


def _derived_sections(folder: Path, index: Index, derived: Derived) -> Iterator[Check]:
    found = page.extract(_page(folder))
    for name, content in {**of_recording(derived, index), **of_index(index)}.items():
        if name in found and found[name] != content:
            yield Check(f"section {name}", False, f"{PAGE} says otherwise than the evidence")


def _sections(folder: Path, index: Index) -> Iterator[Check]:
    """The generated sections are what was generated, whichever version did."""
    try:
        found = page.extract(_page(folder))
    except PostmortemError as error:
        yield Check(PAGE, False, str(error))
        return
    for name, digest in index.sections.items():
        if name not in found:
            yield Check(f"section {name}", False, f"{PAGE} has lost it, or its markers")
        else:
            same = sha256(found[name].encode("utf-8")) == digest
            detail = "as it was generated" if same else "edited: write outside of the generated sections"
            yield Check(f"section {name}", same, detail)


def _page(folder: Path) -> str:
    return read(folder, PAGE, MAX_TEXT_BYTES).decode("utf-8", "replace")


def _load(folder: Path, path: str) -> Any:
    return json.loads(read(folder, path, MAX_TEXT_BYTES))
